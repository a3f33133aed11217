"""The contract between posbench and executors, in terms of ids only.

An executor sees no plans, cells or components. It passes the ids of tasks to wherever jobs run, and results back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class TaskIds:
    """The ids of one task: the parts of one job that are still to be computed.

    Attributes:
        job_id: the job.
        cell_ids: its cells to compute.
        metrics: name and version of each metric of the whole job to measure.
        features_id: equal for tasks that read from the same training features (see `groups`).
    """

    job_id: str
    cell_ids: tuple[str, ...]
    metrics: tuple[tuple[str, str], ...]
    features_id: str


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run that concern its executor.

    Attributes:
        config: the argument of `posbench.Worker`; can be pickled, and is otherwise opaque.
        device: `cpu` or `cuda`, the device that jobs run on.
        jobs: the number of jobs to run at once; None leaves it to the executor.
        time_limit: seconds that a job may take, or None.
        cpus_per_job, gpus_per_job: the processors and GPUs of a cluster that a job takes, or None.
        ray_address: the address of a Ray cluster, or None.
    """

    config: object
    device: str
    jobs: int | None = None
    time_limit: float | None = None
    cpus_per_job: int | None = None
    gpus_per_job: float | None = None
    ray_address: str | None = None


#: Called right before a group of tasks begins. Returns the tasks that are to be computed in their place, which may be
#: none of them: other runs may share the store.
Claim: TypeAlias = Callable[[Sequence[TaskIds]], list[TaskIds]]


class Observer(Protocol):
    """Receives the progress of jobs."""

    def started(self, job_id: str) -> None:
        """Note that a job begins."""

    def progress(self, job_id: str, images: int) -> None:
        """Note that this many more images have passed through the job's network."""


class Pool(Protocol):
    """A started executor."""

    def results(self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim) -> Generator[tuple[str, object]]:
        """Yield the id and the result of each claimed job, in any order, as soon as it is known.

        The result is the `posbench.JobResult` that `posbench.Worker` returned, or an exception if the job was ended
        from outside, such as by a time limit. Closing the generator must end all that still runs.

        Args:
            tasks: the tasks, those that share features one after the other.
            observer: receives the progress of jobs.
            claim: must be called with each group of tasks right before it begins.

        Raises:
            UsageError, MissingError: for input that the user has to correct. They end the run.
        """


def groups(tasks: Iterable[TaskIds]) -> Iterator[list[TaskIds]]:
    """Yield the consecutive tasks that share features, a list each: a worker computes them once for a whole group."""
    for _, group in groupby(tasks, key=lambda task: task.features_id):
        yield list(group)
