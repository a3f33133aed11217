"""Where jobs run: in this process, or in worker processes of this machine.

A worker is told what to do by ids. It makes the plan again from the same selection, and so has the components, weights
and images that the ids stand for, or finds that it has not. Nothing but plain results comes back, and only the process
that asked writes them down.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

from posbench.claims import Claims
from posbench.components import Metric
from posbench.engine import Engine, JobResult, Observer, check, struck
from posbench.errors import PosbenchError
from posbench.guests import ROOM, announce_on
from posbench.plan import Job, Plan, Task
from posbench.processes import end_with_parent
from posbench.store import Store

if TYPE_CHECKING:
    from posbench.selection import Selection

#: How often a job is given to another worker when its own has died, which may have been no fault of the job's.
RETRIES = 1
#: Seconds that a worker has to go by itself before it is ended.
GRACE = 5.0
#: Seconds between two looks at whether another process has let go of a job.
PATIENCE = 0.2
_Task = tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]


#: Asked right before a group of tasks begins: what of it is left to this run, when others share its store.
Claim = Callable[[Sequence[Task]], list[Task]]


class Executor(Protocol):
    """Runs the tasks of a plan, in any order."""

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        """Each task that was claimed with what became of it, as soon as that is known.

        What a job does wrong is in its result. Closing the iterator ends whatever still runs.

        Args:
            claim: must be asked about each group of tasks, no sooner than it is about to begin; what it returns, which
                may be nothing, is to be computed in their place.

        Raises:
            UsageError, MissingError: for input that the user has to mend, which ends the run.
        """
        ...


@dataclass(frozen=True)
class Here:
    """Runs them in this process, one after the other.

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


def groups(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks that share features, one after the other in their order."""
    for _, group in groupby(tasks, key=lambda task: task.job.training):
        yield list(group)


def run(
    tasks: Sequence[Task],
    store: Store,
    executor: Executor,
    *,
    fail_fast: bool,
    observer: Observer,
    metrics: Sequence[Metric] | None = None,
    since: int | None = None,
    forced: bool = False,
    apart: Executor | None = None,
) -> Generator[tuple[Job, JobResult]]:
    """Compute some tasks of a plan, and store each job as it finishes.

    Other processes may do the same with the same store: a job that one of them has in hand is left to it, and waited
    for at the end; should it die, the job is taken over.

    Args:
        fail_fast: stop after the first job that fails.
        metrics, since, forced: as `Store.remaining` takes them; `since` is the store's last run when the tasks were
            chosen, by default what it is now.
        apart: runs, after the others, jobs that were in hand when a process died; by default, the executor does.

    Yields:
        Each computed job, once it is stored.

    Raises:
        UsageError, MissingError: as `engine.check` does, before any job runs; or if the store cannot be written.
    """
    check([task.job for task in tasks])
    since = store.last_run() if since is None else since
    left = list(tasks)
    with Claims(store.path) as claims:
        for job_id in claims.unended() - {task.job.id for task in tasks}:
            # Its process died right after it had been stored.
            if store.knows(job_id) and claims.take(job_id):
                claims.drop(job_id)

        def claim(wanted: Sequence[Task]) -> list[Task]:
            mine = []
            for task in wanted:
                if not claims.take(task.job.id):
                    elsewhere.append(task)
                elif rest := store.remaining(task, since, metrics, forced=forced):
                    mine.append(rest)
                else:
                    claims.drop(task.job.id)
            return mine

        while left:
            elsewhere: list[Task] = []
            deadly = claims.unended()
            careless, careful = ([task for task in left if (task.job.id in deadly) == one] for one in (False, True))
            for chosen, by in (careless, executor), (careful, apart or executor):
                with closing(by.results(chosen, observer, claim)) as results:
                    for task, result in results:
                        store.save(task.job, task.cells, result.outcomes, result.provenance, result.readings)
                        claims.drop(task.job.id)
                        observer.finished(task.job, result)
                        yield task.job, result
                        if fail_fast and result.status == "failed":
                            return
            left = elsewhere
            while left and not claims.free(task.job.id for task in left):
                time.sleep(PATIENCE)


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
    """Runs them in processes of their own, which share out the processor's threads.

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
                    worker.connection.send([_named(task) for task in worker.tasks])
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


def _named(task: Task) -> _Task:
    return task.job.id, tuple(cell.id for cell in task.cells), tuple((m.name, m.version) for m in task.measures)


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

    from posbench.ingredients import gather
    from posbench.registry import load_registry

    try:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        gathered = gather(selection, load_registry(), download=False)
        plan = gathered.plan()
        cells, measures = {cell.id: cell for cell in plan.cells}, {(m.name, m.version): m for m in plan.measures}
        teller, engine = _Teller(connection), Engine(gathered.device)
        while True:
            asked: list[_Task] = connection.recv()
            jobs = {cell.job.id: cell.job for cell in plan.cells}
            if missing := [job for job, *_ in asked if job not in jobs]:
                raise PosbenchError(
                    f"a worker does not find job {missing[0][:12]} in the plan: files or plugins changed as it started"
                )
            tasks = [
                Task(jobs[job], tuple(cells[one] for one in of_cells), tuple(measures[one] for one in of_job))
                for job, of_cells, of_job in asked
            ]
            engine.expect([task.job for task in tasks])
            for task in tasks:
                teller.started(task.job)
                connection.send(("done", engine.compute(task, plan.metrics, teller)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked is gone
    except PosbenchError as error:
        connection.send(("refused", error))
