"""One run, from a configuration to its results; the command line and `posbench.run` share it.

Imports no torch until something is computed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial

from posbench.bench.config import LOCAL, RunConfig
from posbench.bench.plan import Plan, Task
from posbench.bench.resolve import ResolvedRun, resolve_config
from posbench.core.errors import Interrupted, UsageError
from posbench.core.malloc import request_huge_pages
from posbench.core.processes import stdout_to_stderr
from posbench.plugin.components import Executor
from posbench.plugin.execution import RunOptions
from posbench.plugin.registry import Registry
from posbench.report.literature import published
from posbench.report.rows import job_row, rows
from posbench.runner.observers import RunListener
from posbench.runner.results import Results, Spent
from posbench.runner.worker_config import WorkerConfig
from posbench.store.locks import remove_stale_locks
from posbench.store.store import Store


def run(config: RunConfig, registry: Registry, listener: RunListener) -> Results:
    """Plan a run, compute what the store lacks, and return all of its results.

    A dry run stops at the plan. Prints nothing: the caller shows the results, and the listener what happens before.

    Args:
        config: the configuration.
        registry: the components, looked up by the names in the configuration.
        listener: receives the events of the run.

    Raises:
        UsageError, ComponentError, MissingError: for what the user has to correct, before anything is computed.
        Interrupted: if the user stops the run; jobs that had finished are stored.
    """
    return Session(config, registry, listener).run()


class Session:
    """The stages of one run: plan, compute, collect. Takes the arguments of `run`.

    Raises:
        UsageError: if there is no such executor or table of a paper, or if components that were made in this process
            are to be used in others.
    """

    def __init__(self, config: RunConfig, registry: Registry, listener: RunListener) -> None:
        self._executor = registry.get(Executor, config.executor)
        other_processes = (config.jobs or 1) > 1 or config.time_limit is not None or config.executor != LOCAL
        if registry.added and other_processes:
            raise UsageError(
                f"{registry.added[0].title} is known to this process alone, and jobs, time_limit and executor take "
                "others: leave them out, or offer it by a plugin"
            )
        self._published = published(config.published) if config.published else None
        self._requested = config
        self._registry = registry
        self._listener = listener

    @cached_property
    def resolved(self) -> ResolvedRun:
        """The components, weights and images that the configuration names."""
        with stdout_to_stderr():
            return resolve_config(self._requested, self._registry, download=not self._requested.dry_run)

    @cached_property
    def plan(self) -> Plan:
        """The jobs and cells of the run, or of its shard."""
        with stdout_to_stderr():
            return self.resolved.plan().shard(*self.resolved.config.part())

    def run(self) -> Results:
        """Plan, compute and collect. Raises as the function `run` does."""
        resolved, plan = self.resolved, self.plan
        controls = self._registry.control_catalogue()
        results = Results(
            plan, (), resolved.device, self._requested.store, left_out=resolved.left_out, _controls=controls
        )
        if not plan.cells:
            return results
        warnings = [*(f"left out: {reason}" for reason in resolved.left_out), *resolved.warnings]
        self._warn(warnings)
        if self._requested.dry_run:
            return replace(results, tasks=self._tasks_of_dry_run(), warnings=tuple(warnings))
        with Store(self._requested.store) as store:
            last_run = store.last_run()
            tasks = self._remaining_tasks(store)
            unreadable = list(_unreadable_images(tasks))
            self._warn(unreadable)
            spent = None
            if tasks:
                spent = self.compute(tasks, store, last_run)
            else:
                remove_stale_locks(store.path, {job.id for job, _ in plan.jobs()}.__contains__)
            results = replace(
                results, tasks=tasks, warnings=(*warnings, *unreadable), spent=spent, published=self._published
            )
            results = self.collect(results, store)
        if spent:
            self._listener.finished(results)
        return results

    def compute(self, tasks: Sequence[Task], store: Store, last_run: int) -> Spent:
        """Compute tasks of the plan and store the results.

        Args:
            tasks: the tasks that the store lacked after its run `last_run`.
            store: the store.
            last_run: the number of the store's last run when the tasks were chosen.

        Raises:
            Interrupted: if the user stops it.
        """
        request_huge_pages()  # before the imports below, which take torch
        from posbench.runner.jobs import CheckedPool, JobRunner
        from posbench.runner.local import worker_pool

        config, options = self.resolved.config, self._run_options()
        # Components that were made in this process cannot be isolated: other processes do not have them.
        isolate = config.executor == LOCAL and not self._registry.added
        start, seconds, states = time.perf_counter(), Counter[str](), Counter[str]()
        try:
            with stdout_to_stderr(), self._listener.watching([task.job for task in tasks]) as observer:
                runner = JobRunner(
                    store,
                    CheckedPool.start(self._executor, options),
                    observer,
                    isolated_pool=worker_pool(options, 1) if isolate else None,
                    remaining=partial(store.remaining, since=last_run, metrics=self.plan.metrics, forced=config.force),
                    time_limit=config.time_limit,
                    fail_fast=config.fail_fast,
                )
                with closing(runner.run(tasks)) as results:
                    for _, result in results:
                        seconds.update(result.seconds)
                        states[result.status] += 1
        except KeyboardInterrupt:
            # Ask the store: the interruption may fall between storing a job and counting it.
            stored = len(store.jobs_after(last_run) & {task.job.id for task in tasks})
            raise Interrupted(
                f"interrupted after {stored} of {len(tasks)} jobs; they are stored in {str(store.path)!r}, "
                "and the same command goes on from there"
            ) from None
        stopped = config.fail_fast and states["failed"] > 0
        return Spent(states, seconds, time.perf_counter() - start, stopped)

    def collect(self, results: Results, store: Store) -> Results:
        """Add the rows of the plan's cells and jobs from the store."""
        jobs = (job.id for job, _ in self.plan.jobs())
        return replace(
            results,
            rows=rows(store.records(cell.id for cell in self.plan.cells), results._controls),
            job_rows=[job_row(record) for record in store.measurements(jobs, self.plan.measures)],
        )

    def _run_options(self) -> RunOptions:
        """Return the options of the executor.

        The workers' configuration holds the resolved device and precision, since other machines may resolve them
        differently, and no options of a cluster.
        """
        config, device = self.resolved.config, self.resolved.device
        worker_config = replace(
            config,
            device=device,
            precision=self.resolved.plan_inputs.precision,
            executor=LOCAL,
            cpus_per_job=None,
            gpus_per_job=None,
            ray_address=None,
        )
        return RunOptions(
            config=WorkerConfig(worker_config, (self.plan, device)),
            device=device,
            jobs=config.jobs,
            time_limit=config.time_limit,
            cpus_per_job=config.cpus_per_job,
            gpus_per_job=config.gpus_per_job,
            ray_address=config.ray_address,
        )

    def _tasks_of_dry_run(self) -> tuple[Task, ...]:
        """Return the tasks that a run would compute, without creating a store."""
        if not self._requested.store.exists():
            return tuple(self.plan.tasks())
        with Store(self._requested.store, must_exist=True) as store:
            return self._remaining_tasks(store)

    def _remaining_tasks(self, store: Store) -> tuple[Task, ...]:
        """Return the tasks that the store lacks, or all of them with `force`."""
        if self._requested.force:
            return tuple(self.plan.tasks())
        return tuple(self.plan.tasks(store.finished(self.plan.metrics), store.measured()))

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self._listener.warning(warning)


def _unreadable_images(tasks: Sequence[Task]) -> Iterator[str]:
    """Yield a warning for each source of images with files that cannot be read."""
    from posbench.data.photographs import readable_photographs

    roles = (role for task in tasks for role in (task.job.train, task.job.test))
    sources = {role.images.label or role.images.name: role.images for role in roles}
    for label, images in sources.items():
        if names := readable_photographs(images).left_out:
            yield f"{len(names)} images of {label} cannot be read and are left out: {', '.join(names)}"
