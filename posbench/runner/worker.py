"""Computation of tasks that are given by their ids, in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from posbench.bench.engine import Engine, JobResult
from posbench.bench.plan import Plan, Task
from posbench.core.device import configure_torch
from posbench.core.errors import PosbenchError
from posbench.plugin.execution import Claim, Observer, TaskIds
from posbench.runner.observers import JobObserver
from posbench.runner.worker_config import WorkerConfig

_SILENT = JobObserver()


class InProcessPool:
    """Computes tasks of a plan in this process, one after the other.

    Args:
        plan: the plan of the tasks.
        device: `cpu` or `cuda`.
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan = plan
        self._device = device
        self._engine = Engine(device)
        self._jobs = {cell.job.id: cell.job for cell in plan.cells}
        self._cells = {cell.id: cell for cell in plan.cells}
        self._measures = {(metric.name, metric.version): metric for metric in plan.measures}

    def results(
        self, tasks: Sequence[TaskIds], observer: Observer = _SILENT, claim: Claim = list
    ) -> Generator[tuple[str, JobResult]]:
        """Yield the id and the result of each job, in order. The result says if the job failed.

        Args:
            tasks: the tasks to compute. Features, images and networks that they share are computed once.
            observer: receives the progress of jobs.
            claim: called with each task right before it begins, as a list; returns the tasks to compute in its place.

        Raises:
            PosbenchError: if a task is not in the plan.
            UsageError, MissingError: for input that the user has to correct.
        """
        configure_torch(self._device)
        self._engine.expect([self._task(ids).job for ids in tasks])
        for ids in tasks:
            for task in map(self._task, claim([ids])):
                job_id = task.job.id
                observer.started(job_id)
                yield job_id, self._engine.compute(task, self._plan.metrics, observer)

    def _task(self, ids: TaskIds) -> Task:
        if ids.job_id not in self._jobs:
            raise PosbenchError(
                f"a worker does not find job {ids.job_id[:12]} in the plan: files, plugins or versions there are "
                "others than where the run began"
            )
        cells = tuple(self._cells[cell_id] for cell_id in ids.cell_ids)
        return Task(self._jobs[ids.job_id], cells, tuple(self._measures[metric] for metric in ids.metrics))


class Worker(InProcessPool):
    """Computes tasks of a run, in the process that began it or in another one, on this machine or elsewhere.

    In another process it makes the plan again, with the components, weights and images that are there.

    Args:
        config: the `config` of `posbench.RunOptions`.
        threads: the number of threads that torch uses; by default torch decides.

    Raises:
        TypeError: if the argument is no `config` of `posbench.RunOptions`.
        UsageError, ComponentError, MissingError: if something that the configuration names is missing here.
    """

    def __init__(self, config: object, threads: int | None = None) -> None:
        if not isinstance(config, WorkerConfig):
            raise TypeError(f"a worker takes the config of posbench.RunOptions, not a {type(config).__name__}")
        if threads is not None:
            torch.set_num_threads(max(1, threads))
        super().__init__(*config.plan())
