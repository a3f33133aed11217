"""Has the tasks of a plan computed, wherever that is, and stores what comes back.

Nothing but plain results comes back from wherever jobs run, and only the process that asked writes them down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from posbench.bench.engine import JobResult, Observer, failed_result
from posbench.bench.plan import Job, Plan, Task
from posbench.bench.preflight import check
from posbench.core.errors import ComponentError, MissingError, PosbenchError, UsageError
from posbench.plugin.components import Executor, Metric
from posbench.plugin.sandbox import naming_errors
from posbench.store.locks import JobLocks
from posbench.store.store import Store

if TYPE_CHECKING:
    from posbench.bench.config import RunConfig

#: Seconds between two looks at whether another process has let go of a job.
PATIENCE = 0.2
#: Asked right before a group of tasks begins: what of it is left to this run, when others share its store.
Claim = Callable[[Sequence[Task]], list[Task]]


class Pool(Protocol):
    """What an executor starts: it runs tasks of a plan, in any order."""

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
class Started:
    """A pool that is held to what it promises, as plugins may bring it.

    Attributes:
        executor: that started it.
    """

    executor: Executor
    pool: Pool

    @classmethod
    def by(cls, executor: Executor, config: RunConfig, plan: Plan, device: str) -> Started:
        """Start a pool.

        Raises:
            UsageError, MissingError: for what cannot be had.
            ComponentError: if the executor raises anything else.
        """
        with naming_errors(executor, UsageError, MissingError):
            return cls(executor, executor.start(config, plan, device))

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        due: dict[str, Task] = {}

        def noted(group: Sequence[Task]) -> list[Task]:
            mine = claim(group)
            due.update((task.job.id, task) for task in mine)
            return mine

        with naming_errors(self.executor, PosbenchError), closing(self.pool.results(tasks, observer, noted)) as results:
            for task, result in results:
                if due.pop(task.job.id, None) != task:
                    raise ComponentError(f"{self.executor.title} gave a result that was not due, of {task.job.title}")
                if not isinstance(result, JobResult) or len(result.outcomes) != len(task.cells):
                    raise ComponentError(
                        f"{self.executor.title} gave something else than a result for {task.job.title}"
                    )
                yield task, result
        for task in due.values():
            yield task, failed_result(task, ComponentError(f"{self.executor.title} ended without a result of it"))


def run(
    tasks: Sequence[Task],
    store: Store,
    pool: Pool,
    *,
    fail_fast: bool,
    observer: Observer,
    metrics: Sequence[Metric] | None = None,
    since: int | None = None,
    forced: bool = False,
    apart: Pool | None = None,
    limit: float | None = None,
) -> Generator[tuple[Job, JobResult]]:
    """Compute some tasks of a plan, and store each job as it finishes.

    Other processes may do the same with the same store: a job that one of them has in hand is left to it, and waited
    for at the end; should it die, the job is taken over.

    Args:
        fail_fast: stop after the first job that fails.
        metrics, since, forced: as `Store.remaining` takes them; `since` is the store's last run when the tasks were
            chosen, by default what it is now.
        apart: runs, after the others, jobs that were in hand when a process died, or that `preflight.check` warns of;
            by default, the pool does.
        limit: as `preflight.check` takes it.

    Yields:
        Each computed job, once it is stored.

    Raises:
        UsageError, MissingError: as `preflight.check` does, before any job runs; or if the store cannot be written.
    """
    warned_of = check([task.job for task in tasks], limit)
    since = store.last_run() if since is None else since
    left = list(tasks)
    with JobLocks(store.path) as claims:
        claims.mark_stored(store.has_job, but={task.job.id for task in tasks})

        def claim(wanted: Sequence[Task]) -> list[Task]:
            mine = []
            for task in wanted:
                if not claims.acquire(task.job.id):
                    elsewhere.append(task)
                elif rest := store.remaining(task, since, metrics, forced=forced):
                    mine.append(rest)
                else:
                    claims.release(task.job.id)
            return mine

        while left:
            elsewhere: list[Task] = []
            deadly = claims.unfinished() | warned_of
            careless, careful = ([task for task in left if (task.job.id in deadly) == one] for one in (False, True))
            for chosen, by in (careless, pool), (careful, apart or pool):
                with closing(by.results(chosen, observer, claim)) as results:
                    for task, result in results:
                        store.save(task.job, task.cells, result.outcomes, result.provenance, result.measurements)
                        claims.release(task.job.id)
                        observer.finished(task.job, result)
                        yield task.job, result
                        if fail_fast and result.status == "failed":
                            return
            left = elsewhere
            while left and not claims.any_free(task.job.id for task in left):
                time.sleep(PATIENCE)
