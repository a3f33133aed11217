"""The executor that comes with every installation: this process, or worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from posbench.engine import Engine, JobResult, Observer, struck
from posbench.errors import PosbenchError
from posbench.executors import Claim, Pool
from posbench.guests import ROOM, announce_on
from posbench.plan import Plan, Task, TaskIds, groups
from posbench.processes import end_with_parent
from posbench.working import Worker

if TYPE_CHECKING:
    from posbench.selection import Selection

#: How often a job is given to another worker when its own has died, which may have been no fault of the job's.
RETRIES = 1
#: Seconds that a worker has to go by itself before it is ended.
GRACE = 5.0


def start_local(selection: Selection, plan: Plan, device: str) -> Pool:
    """This process, or worker processes where several jobs are to run at once or any may have to be ended."""
    if (selection.jobs or 1) > 1 or selection.time_limit is not None:
        return Workers(selection, selection.jobs or 1, selection.time_limit)
    return Here(plan, device)


@dataclass(frozen=True)
class Here:
    """Runs tasks in this process, one after the other.

    Attributes:
        plan: what the tasks are of.
        device: `cpu` or `cuda`.
    """

    plan: Plan
    device: str

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        engine = Engine(self.device)
        engine.expect([task.job for task in tasks])
        for task in (mine for one in tasks for mine in claim([one])):
            observer.started(task.job)
            yield task, engine.compute(task, self.plan.metrics, observer)


@dataclass
class _Worker:
    """A process, and the tasks that it was given and has not finished."""

    process: BaseProcess
    connection: Connection
    board: Any
    tasks: deque[Task] = field(default_factory=deque)
    deadline: float = float("inf")

    @property
    def visiting(self) -> str:
        """Which component it runs, if any."""
        title = self.board.value.decode(errors="replace")
        return f" in {title}" if title else ""

    def end(self) -> None:
        """See it off, by force if need be."""
        self.connection.close()
        self.process.kill() if self.tasks else self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class Workers:
    """Runs tasks in processes of their own, which share out the processor's threads.

    Jobs that share features go to one worker, one after the other. A worker that dies is replaced, and the job that it
    had in hand is given to another once. One that takes too long is ended, and its job has failed.

    Attributes:
        selection: what the plan was made from.
        count: how many processes.
        time_limit: seconds that a job may take, or None.
    """

    selection: Selection
    count: int
    time_limit: float | None = None

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        waiting = deque(deque(group) for group in groups(tasks))
        workers: list[_Worker] = []
        deaths: Counter[str] = Counter()
        try:
            while waiting or any(worker.tasks for worker in workers):
                idle = [worker for worker in workers if not worker.tasks]
                while waiting and (idle or len(workers) < self.count):
                    if not (group := claim(waiting.popleft())):
                        continue
                    worker = idle.pop() if idle else self._started(workers)
                    worker.tasks = deque(group)
                    worker.connection.send([task.ids for task in worker.tasks])
                    # Its first deadline counts from when it says that it has begun: starting takes seconds.
                    worker.deadline = float("inf")
                if any(worker.tasks for worker in workers):
                    yield from self._heard(workers, waiting, deaths, observer)
        finally:
            for worker in workers:
                worker.end()

    def _started(self, workers: list[_Worker]) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        board = context.RawArray("c", ROOM)
        process = context.Process(target=_work, args=(theirs, board, self.selection, self.count), daemon=True)
        process.start()
        theirs.close()
        workers.append(_Worker(process, ours, board))
        return workers[-1]

    def _heard(
        self, workers: list[_Worker], waiting: deque[deque[Task]], deaths: Counter[str], observer: Observer
    ) -> Iterator[tuple[Task, JobResult]]:
        """Wait until a worker says something, dies or is late, and see to it."""
        busy = [worker for worker in workers if worker.tasks]
        first = min(worker.deadline for worker in busy)
        patience = None if first == float("inf") else max(0.0, first - time.monotonic())
        ready = wait([worker.connection for worker in busy], patience)
        for worker in busy:
            task = worker.tasks[0]
            if worker.connection in ready:
                try:
                    kind, *rest = worker.connection.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    worker.end()
                    deaths[task.job.id] += 1
                    if deaths[task.job.id] > RETRIES:
                        worker.tasks.popleft()
                        died = f"its process died {deaths[task.job.id]} times ({_how(worker.process)})"
                        yield task, struck(task, PosbenchError(died + worker.visiting))
                    if worker.tasks:
                        waiting.appendleft(worker.tasks)
                    continue
                if kind == "started":
                    observer.started(task.job)
                    worker.deadline = time.monotonic() + (self.time_limit or float("inf"))
                elif kind == "saw":
                    observer.saw(task.job, *rest)
                elif kind == "refused":
                    raise rest[0]
                else:
                    worker.tasks.popleft()
                    worker.deadline = float("inf")
                    yield task, rest[0]
            elif worker.deadline <= time.monotonic():
                workers.remove(worker)
                worker.end()
                worker.tasks.popleft()
                if worker.tasks:
                    waiting.appendleft(worker.tasks)
                late = f"it took longer than --time-limit {self.time_limit:g} s, and was ended"
                yield task, struck(task, PosbenchError(late + worker.visiting))


def _how(process: BaseProcess) -> str:
    """How a process ended."""
    code = process.exitcode or 0
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


class _Teller:
    """Tells the process that asked how a job goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, job: Any) -> None:
        self._connection.send(("started",))

    def saw(self, job: Any, images: int) -> None:
        self._connection.send(("saw", images))

    def finished(self, job: Any, result: object) -> None: ...


def _work(connection: Connection, board: Any, selection: Selection, count: int) -> None:
    """The life of a worker: groups of tasks come in, what becomes of each goes out."""
    end_with_parent()
    announce_on(board)
    # Standard output is for tables: what a plugin prints goes elsewhere.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    try:
        worker, teller = Worker(selection, torch.get_num_threads() // count), _Teller(connection)
        while True:
            asked: list[TaskIds] = connection.recv()
            for result in worker.results(asked, teller):
                connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked is gone
    except PosbenchError as error:
        connection.send(("refused", error))
