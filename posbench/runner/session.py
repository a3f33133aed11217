"""One run, from a selection to its results: `run`, which the command line and `posbench.run` both call.

Imports no torch until something is computed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from posbench.bench.config import LOCAL, RunConfig
from posbench.bench.plan import Job, Plan, Task
from posbench.bench.resolve import resolve_config
from posbench.core.errors import Interrupted, UsageError
from posbench.core.processes import stdout_to_stderr
from posbench.plugin.components import Executor
from posbench.plugin.registry import Registry
from posbench.report.literature import published
from posbench.report.rows import job_row, rows
from posbench.runner.results import Results, Spent
from posbench.store.locks import remove_stale_locks
from posbench.store.store import Store

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult, Observer


class RunListener(Protocol):
    """Who is told how a run goes on."""

    def warned(self, warning: str) -> None:
        """Told before anything is computed."""
        ...

    def attend(self, jobs: Sequence[Job]) -> AbstractContextManager[Observer]:
        """These jobs are about to be computed; what it gives is told of each, until it is left."""
        ...

    def heard(self, results: Results) -> None:
        """Told at the end, if anything was computed."""
        ...


class SilentListener:
    """An audience, and an observer, that hears nothing."""

    def warned(self, warning: str) -> None: ...

    @contextmanager
    def attend(self, jobs: Sequence[Job]) -> Iterator[SilentListener]:
        yield self

    def heard(self, results: Results) -> None: ...

    def started(self, job: Job) -> None: ...

    def saw(self, job: Job, images: int) -> None: ...

    def finished(self, job: Job, result: JobResult) -> None: ...


def run(config: RunConfig, registry: Registry, audience: RunListener, *, keeps: object = None) -> Results:
    """Plan what was selected, compute what the store lacks, and return all of it; a dry run stops at the plan.

    It prints nothing: who calls it makes a selection of options before, and shows results after.

    Args:
        selection: what was asked for.
        registry: where its names are looked up.
        audience: who is told how it goes on.
        keeps: is kept as long as the results are.

    Raises:
        UsageError, ComponentError, MissingError: for what the user has to mend, before anything is computed.
        Interrupted: if the user stops it; what had finished is stored.
    """
    registry.get(Executor, config.executor)  # one that is unknown is told before anything is looked up
    others = (config.jobs or 1) > 1 or config.time_limit is not None or config.executor != LOCAL
    if registry.given and others:
        raise UsageError(
            f"{registry.given[0].title} is known to this process alone, and jobs, time_limit and executor take others: "
            "leave them out, or offer it by a plugin"
        )
    beside = published(config.published) if config.published else None
    with stdout_to_stderr(), redirect_stdout(sys.stderr):
        resolved = resolve_config(config, registry, download=not config.dry_run)
        config = resolved.config
        plan = resolved.plan().shard(*config.part())
    results = Results(plan, (), resolved.device, config.store, left_out=resolved.left_out, _keeps=keeps)
    if not plan.cells:
        return results
    results = replace(results, warnings=(*(f"left out: {why}" for why in resolved.left_out), *resolved.warnings))
    for warning in results.warnings:
        audience.warned(warning)
    if config.dry_run:
        return replace(results, tasks=_planned(plan, config))
    with Store(config.store) as store:
        since = store.last_run()
        tasks = _left(plan, store, force=config.force)
        unreadable = tuple(_unreadable(tasks))
        for warning in unreadable:
            audience.warned(warning)
        spent = None
        if tasks:
            spent = _compute(tasks, plan, store, config, resolved.device, audience, since, registry)
        else:
            remove_stale_locks(store.path, {job.id for job, _ in plan.jobs()}.__contains__)
        results = replace(
            results,
            tasks=tasks,
            rows=rows(store.records(cell.id for cell in plan.cells)),
            job_rows=[job_row(one) for one in store.measurements((job.id for job, _ in plan.jobs()), plan.measures)],
            warnings=(*results.warnings, *unreadable),
            spent=spent,
            published=beside,
        )
    if spent:
        audience.heard(results)
    return results


def _planned(plan: Plan, config: RunConfig) -> tuple[Task, ...]:
    """What a run would do; asks the store, if there is one, what is already done."""
    if not config.store.exists():
        return tuple(plan.tasks())
    with Store(config.store, must_exist=True) as store:
        return _left(plan, store, force=config.force)


def _left(plan: Plan, store: Store, *, force: bool) -> tuple[Task, ...]:
    return tuple(plan.tasks() if force else plan.tasks(store.finished(plan.metrics), store.measured()))


def _compute(
    tasks: Sequence[Task],
    plan: Plan,
    store: Store,
    config: RunConfig,
    device: str,
    audience: RunListener,
    since: int,
    registry: Registry,
) -> Spent:
    """Compute and store these tasks.

    Raises:
        Interrupted: if the user stops it.
    """
    from posbench.runner import jobs as executors
    from posbench.runner.local import local_workers

    executor = registry.get(Executor, config.executor)
    # Other processes do not have what was given to this one; and elsewhere, no job can take this one down.
    apart = config.executor == LOCAL and not registry.given
    started, seconds, states = time.perf_counter(), Counter[str](), Counter[str]()
    try:
        with (
            stdout_to_stderr(),
            redirect_stdout(sys.stderr),
            audience.attend([task.job for task in tasks]) as observer,
            closing(
                executors.run(
                    tasks,
                    store,
                    executors.Started.by(executor, config, plan, device),
                    fail_fast=config.fail_fast,
                    observer=observer,
                    metrics=plan.metrics,
                    since=since,
                    forced=config.force,
                    apart=local_workers(config, 1) if apart else None,
                    limit=config.time_limit,
                )
            ) as results,
        ):
            for _, result in results:
                seconds.update(result.seconds)
                states[result.status] += 1
    except KeyboardInterrupt:
        # The store knows: an interruption may fall between storing a job and counting it.
        stored = len(store.jobs_after(since) & {task.job.id for task in tasks})
        raise Interrupted(
            f"interrupted after {stored} of {len(tasks)} jobs; they are stored in {str(store.path)!r}, "
            "and the same command goes on from there"
        ) from None
    stopped = config.fail_fast and states["failed"] > 0
    return Spent(states, seconds, time.perf_counter() - started, stopped)


def _unreadable(tasks: Sequence[Task]) -> Iterator[str]:
    """A warning for each source of images some of which cannot be read."""
    from posbench.data.photographs import readable_photographs

    roles = (role for task in tasks for role in (task.job.train, task.job.test))
    sources = {role.images.label or role.images.name: role.images for role in roles}
    for label, images in sources.items():
        if bad := readable_photographs(images).left_out:
            yield f"{len(bad)} images of {label} cannot be read and are left out: {', '.join(bad)}"
