"""Computes tasks in another process or on another machine than the one that planned them.

A worker is told what to do by ids. It makes the plan again from the same selection, and so has the components, weights
and images that the ids stand for, or finds that it has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posbench.bench.engine import Engine, JobResult, Observer
from posbench.bench.plan import Task, TaskIds
from posbench.bench.resolve import resolve_config
from posbench.core.device import configure_torch
from posbench.core.errors import PosbenchError
from posbench.plugin.registry import load_registry

if TYPE_CHECKING:
    from posbench.bench.config import RunConfig


class Worker:
    """Computes tasks that it is told by their ids.

    Args:
        selection: what the plan was made from.
        threads: of the processor, for torch; by default as many as torch takes.

    Raises:
        UsageError, ComponentError, MissingError: as planning does, if what the selection names is not here.
    """

    def __init__(self, config: RunConfig, threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(max(1, threads))
        resolved = resolve_config(config, load_registry(), download=False)
        configure_torch(resolved.device)
        self._plan = resolved.plan()
        self._engine = Engine(resolved.device)
        self._jobs = {cell.job.id: cell.job for cell in self._plan.cells}
        self._cells = {cell.id: cell for cell in self._plan.cells}
        self._measures = {(metric.name, metric.version): metric for metric in self._plan.measures}

    def results(self, asked: Sequence[TaskIds], observer: Observer) -> Iterator[JobResult]:
        """What becomes of each task, in order; what a job does wrong is in its result.

        Args:
            asked: `Task.ids` of tasks that share features (see `posbench.groups`), so that these are computed once.
            observer: is told as each begins, and how it goes on.

        Raises:
            PosbenchError: if one is not in the plan.
            UsageError, MissingError: for input that the user has to mend, which ends the run.
        """
        tasks = [self._task(ids) for ids in asked]
        self._engine.expect([task.job for task in tasks])
        for task in tasks:
            observer.started(task.job)
            yield self._engine.compute(task, self._plan.metrics, observer)

    def _task(self, ids: TaskIds) -> Task:
        job, cells, measures = ids
        if job not in self._jobs:
            raise PosbenchError(
                f"a worker does not find job {job[:12]} in the plan: files, plugins or versions there are others than "
                "where the run began"
            )
        found = tuple(self._cells[one] for one in cells)
        return Task(self._jobs[job], found, tuple(self._measures[one] for one in measures))
