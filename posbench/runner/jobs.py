"""Computation of tasks by a pool, and storage of each result as it comes.

Only this process writes the store. Pools return plain results, wherever they compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from posbench.bench.engine import JobResult, failed_result
from posbench.bench.plan import Job, Task
from posbench.bench.preflight import check
from posbench.core.errors import MissingError, PosbenchError, UsageError
from posbench.plugin.components import Executor
from posbench.plugin.execution import Claim, Observer, Pool, RunOptions, TaskIds
from posbench.plugin.sandbox import attributed_error, naming_errors
from posbench.runner.observers import JobObserver
from posbench.store.locks import JobLocks
from posbench.store.store import Store

#: Seconds between two checks whether another process has unlocked a job. File locks send no notification.
POLL_SECONDS = 0.2


class TrustedPool(Protocol):
    """A pool whose results need no checks: see `posbench.plugin.execution.Pool`."""

    def results(
        self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim
    ) -> Generator[tuple[str, JobResult | Exception]]: ...


@dataclass(frozen=True)
class CheckedPool:
    """The pool of an executor, with checks of its results, since a plugin may provide it.

    Attributes:
        executor: the executor that started the pool.
        pool: the pool.
    """

    executor: Executor
    pool: Pool

    @classmethod
    def start(cls, executor: Executor, options: RunOptions) -> CheckedPool:
        """Start an executor.

        Raises:
            UsageError, MissingError: for what cannot be had.
            ComponentError: if the executor raises anything else.
        """
        with naming_errors(executor, UsageError, MissingError):
            return cls(executor, executor.start(options))

    def results(
        self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim
    ) -> Generator[tuple[str, JobResult | Exception]]:
        """Yield the pool's results, and an error for each claimed task without one.

        Raises:
            ComponentError: if the executor raises, or yields something else than the result of a claimed task.
        """
        due: dict[str, TaskIds] = {}

        def note(group: Sequence[TaskIds]) -> list[TaskIds]:
            claimed = claim(group)
            due.update((task.job_id, task) for task in claimed)
            return claimed

        with naming_errors(self.executor, PosbenchError):
            results = self.pool.results(tasks, observer, note)
        try:
            # The context spans single steps: errors of the consumer of this generator are not the executor's.
            while item := self._next(results, due):
                yield item
        finally:
            with naming_errors(self.executor, PosbenchError):
                results.close()
        for job_id in due:
            yield job_id, attributed_error(f"{self.executor.title} ended without a result of it")

    def _next(
        self, results: Generator[tuple[str, object]], due: dict[str, TaskIds]
    ) -> tuple[str, JobResult | Exception] | None:
        """Return the next result, or None at the end. Raises as `results` does."""
        with naming_errors(self.executor, PosbenchError):
            for job_id, result in results:
                task = due.pop(job_id, None)
                if task is None:
                    raise attributed_error(f"{self.executor.title} gave a result that was not due, of job {job_id!r}")
                if isinstance(result, Exception):
                    return job_id, result
                if not isinstance(result, JobResult) or len(result.outcomes) != len(task.cell_ids):
                    raise attributed_error(
                        f"{self.executor.title} gave something else than a result for job {job_id!r}"
                    )
                return job_id, result
        return None


@dataclass
class JobRunner:
    """Computes tasks of a plan, and stores each job as it finishes.

    Other processes may do the same with the same store. A job that another process has locked is left to it and waited
    for at the end. If that process dies, the job is computed here.

    Attributes:
        store: the store of the results.
        pool: computes the tasks.
        observer: receives the progress of jobs.
        isolated_pool: computes, after the others, the jobs that may take their process down: those that were running
            when a process died, and those that `preflight.check` returns. By default `pool`.
        remaining: returns the part of a task that other processes have not stored meanwhile, or None for nothing. By
            default, what is stored after the run begins counts.
        time_limit: seconds that `preflight.check` allows a plugin, or None.
        fail_fast: stop after the first job that fails.
    """

    store: Store
    pool: TrustedPool
    observer: JobObserver = field(default_factory=JobObserver)
    isolated_pool: TrustedPool | None = None
    remaining: Callable[[Task], Task | None] | None = None
    time_limit: float | None = None
    fail_fast: bool = False

    def run(self, tasks: Sequence[Task]) -> Generator[tuple[Job, JobResult]]:
        """Compute the tasks; yield each job and its result once it is stored.

        Raises:
            UsageError, MissingError: as `preflight.check` does, before any job runs; or if the store cannot be written.
        """
        risky = check([task.job for task in tasks], self.time_limit)
        remaining = self.remaining or partial(self.store.remaining, since=self.store.last_run())
        with JobLocks(self.store.path) as locks:
            locks.mark_stored(self.store.has_job, but={task.job.id for task in tasks})
            waiting = list(tasks)
            while waiting:
                claims = _Claims(locks, remaining, waiting)
                isolated = locks.unfinished() | risky
                for apart, pool in ((False, self.pool), (True, self.isolated_pool or self.pool)):
                    chosen = [task.ids for task in waiting if (task.job.id in isolated) == apart]
                    if chosen and (yield from self._compute(chosen, pool, claims)):
                        return
                waiting = claims.refused
                while waiting and not locks.any_free(task.job.id for task in waiting):
                    time.sleep(POLL_SECONDS)

    def _compute(
        self, tasks: Sequence[TaskIds], pool: TrustedPool, claims: _Claims
    ) -> Generator[tuple[Job, JobResult], None, bool]:
        """Compute tasks with one pool; return True if a failure has to end the run."""
        with closing(pool.results(tasks, self.observer, claims.claim)) as results:
            for job_id, computed in results:
                task = claims.claimed.pop(job_id)
                result = failed_result(task, computed) if isinstance(computed, Exception) else computed
                self.store.save(task.job, task.cells, result.outcomes, result.provenance, result.measurements)
                claims.locks.release(job_id)
                self.observer.finished(job_id, result)
                yield task.job, result
                if self.fail_fast and result.status == "failed":
                    return True
        return False


class _Claims:
    """Locks tasks for this process when a pool claims them.

    Args:
        locks: the locks of this process.
        remaining: as `JobRunner.remaining`.
        tasks: the tasks that can be claimed.

    Attributes:
        claimed: the claimed parts of tasks, by the job's id.
        refused: the tasks that another process has locked.
    """

    def __init__(self, locks: JobLocks, remaining: Callable[[Task], Task | None], tasks: Sequence[Task]) -> None:
        self.locks = locks
        self.claimed: dict[str, Task] = {}
        self.refused: list[Task] = []
        self._remaining = remaining
        self._tasks = {task.job.id: task for task in tasks}

    def claim(self, group: Sequence[TaskIds]) -> list[TaskIds]:
        """Return what remains of these tasks, without those that another process has locked."""
        claimed = []
        for task in (self._tasks[ids.job_id] for ids in group):
            if not self.locks.acquire(task.job.id):
                self.refused.append(task)
            elif rest := self._remaining(task):
                self.claimed[task.job.id] = rest
                claimed.append(rest.ids)
            else:
                self.locks.release(task.job.id)
        return claimed
