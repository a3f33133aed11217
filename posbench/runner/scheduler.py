"""Scheduling of tasks on workers: groups, retries after a worker's death, time limits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from posbench.core.errors import PosbenchError
from posbench.plugin.execution import Claim, Observer, TaskIds, groups
from posbench.runner.transport import Message, WorkerConnection, WorkerExited

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult

#: The id of a job and its result, or the error that ended it.
Result: TypeAlias = "tuple[str, JobResult | PosbenchError]"

#: The number of retries of a job whose worker died, perhaps through no fault of the job.
RETRIES = 1
#: Seconds that a worker has to make its plan, if the time limit of a job is less.
PLANNING_SECONDS = 60.0
NO_DEADLINE = float("inf")

C = TypeVar("C", bound=WorkerConnection)


class WorkerLauncher(Protocol[C]):
    """Starts workers."""

    def start_worker(self) -> C:
        """Start a worker and return the connection to it."""
        ...

    def wait(self, workers: Sequence[C], seconds: float | None) -> Collection[C]:
        """Return the workers that have sent a message or have ended, once there are any or the time is up."""
        ...

    def close(self) -> None:
        """Release what the workers shared; called after all of them have ended."""
        ...


@dataclass(frozen=True)
class WorkerPool:
    """Computes tasks on workers.

    Jobs that share features go to one worker, one after the other. If a worker dies, another one gets its unfinished
    jobs; a job whose workers died twice has failed. A worker that exceeds the time limit is killed, and its job has
    failed.

    Attributes:
        launcher: starts the workers.
        count: the largest number of workers at once.
        time_limit: seconds that a job may take, or None.
    """

    launcher: WorkerLauncher[Any]
    count: int
    time_limit: float | None = None

    def results(self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim) -> Generator[Result]:
        """Compute tasks as `Pool.results` does.

        Raises:
            UsageError, ComponentError, MissingError: if a worker cannot make the plan.
            PosbenchError: if workers die or take too long before they have made it.
        """
        schedule = _Schedule(self, observer, claim, deque(deque(group) for group in groups(tasks)))
        try:
            while schedule.assign():
                yield from schedule.wait()
        finally:
            for worker in schedule.workers:
                worker.connection.close(force=bool(worker.tasks))
            self.launcher.close()


@dataclass
class _Worker:
    """A worker, its unfinished tasks, and the time by which it must finish the first of them."""

    connection: WorkerConnection
    tasks: deque[TaskIds] = field(default_factory=deque)
    ready: bool = False
    deadline: float = NO_DEADLINE


@dataclass
class _Schedule:
    """The state of one call of `WorkerPool.results`."""

    pool: WorkerPool
    observer: Observer
    claim: Claim
    waiting: deque[deque[TaskIds]]
    workers: list[_Worker] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    failed_starts: int = 0

    def assign(self) -> bool:
        """Give waiting groups to idle or new workers; return True if any worker is busy."""
        idle = [worker for worker in self.workers if not worker.tasks]
        while self.waiting and (idle or len(self.workers) < self.pool.count):
            if not (group := self.claim(self.waiting.popleft())):
                continue
            if not idle:
                self.workers.append(_Worker(self.pool.launcher.start_worker()))
            worker = idle.pop() if idle else self.workers[-1]
            worker.tasks = deque(group)
            worker.connection.send(group)
            if worker.ready:
                self._start_timer(worker)
        return any(worker.tasks for worker in self.workers)

    def wait(self) -> Iterator[Result]:
        """Wait until a worker sends a message, dies or exceeds its time; yield the results that follow."""
        busy = [worker for worker in self.workers if worker.tasks]
        deadline = min(worker.deadline for worker in busy)
        timeout = None if deadline == NO_DEADLINE else max(0.0, deadline - monotonic())
        launcher = self.pool.launcher
        ready = launcher.wait([worker.connection for worker in busy], timeout)
        for worker in busy:
            if worker.connection in ready:
                try:
                    yield from self._handle(worker, worker.connection.receive())
                except WorkerExited as exited:
                    yield from self._handle_exit(worker, exited)
                    continue
            # Storing results takes time: a message that was sent before the deadline may not have been read yet.
            if worker.deadline <= monotonic() and not launcher.wait([worker.connection], 0):
                yield from self._handle_timeout(worker)

    def _start_timer(self, worker: _Worker, least: float = 0.0) -> None:
        limit = self.pool.time_limit
        worker.deadline = NO_DEADLINE if limit is None else monotonic() + max(limit, least)

    def _handle(self, worker: _Worker, message: Message) -> Iterator[Result]:
        job_id = worker.tasks[0].job_id
        if message.kind == "planning":
            self._start_timer(worker, PLANNING_SECONDS)
        elif message.kind == "ready":
            worker.ready, self.failed_starts = True, 0
            self._start_timer(worker)
        elif message.kind == "started":
            self.observer.started(job_id)
            self._start_timer(worker)
        elif message.kind == "progress":
            self.observer.progress(job_id, message.value)
        elif message.kind == "error":
            raise message.value
        elif message.kind == "result":
            worker.tasks.popleft()
            worker.deadline = NO_DEADLINE
            if worker.tasks:
                self._start_timer(worker)
            yield job_id, message.value

    def _handle_exit(self, worker: _Worker, exited: WorkerExited) -> Iterator[Result]:
        """Retry the job of a worker that died, or fail it."""
        if not worker.ready:
            self._handle_failed_start(worker, str(exited))
            return
        job_id = worker.tasks[0].job_id
        self.deaths[job_id] += 1
        if self.deaths[job_id] > RETRIES:
            reason = f"its process died {self.deaths[job_id]} times ({exited}){worker.connection.component}"
            yield self._fail(worker, reason)
        else:
            self._stop(worker)

    def _handle_timeout(self, worker: _Worker) -> Iterator[Result]:
        """Fail the job of a worker that exceeded its time."""
        limit = self.pool.time_limit or 0.0
        if worker.ready:
            reason = f"it took longer than --time-limit {limit:g} s, and was ended{worker.connection.component}"
            yield self._fail(worker, reason)
        else:
            self._handle_failed_start(worker, f"their plan takes longer than {max(limit, PLANNING_SECONDS):g} s")

    def _handle_failed_start(self, worker: _Worker, reason: str) -> None:
        """Replace a worker that ended before it had a plan; at the second in a row, end the run."""
        self.failed_starts += 1
        if self.failed_starts > RETRIES:
            raise PosbenchError(
                f"workers do not start ({reason}{worker.connection.component}): posbench and its plugins must work in "
                "a process of their own, and on a cluster be installed on every node"
            )
        self._stop(worker)

    def _fail(self, worker: _Worker, reason: str) -> Result:
        """Kill a worker and return the failure of its current task."""
        task = worker.tasks.popleft()
        self._stop(worker)
        return task.job_id, PosbenchError(reason)

    def _stop(self, worker: _Worker) -> None:
        """Kill a worker; its tasks wait for another one."""
        self.workers.remove(worker)
        worker.connection.close(force=True)
        if worker.tasks:
            self.waiting.appendleft(worker.tasks)
