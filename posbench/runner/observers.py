"""Observers of a run: base classes that ignore all events, for subclasses to override."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult
    from posbench.bench.plan import Job
    from posbench.runner.results import Results


class JobObserver:
    """Receives the progress of jobs, by their ids."""

    def started(self, job_id: str) -> None:
        """Note that a job begins."""

    def progress(self, job_id: str, images: int) -> None:
        """Note that this many more images have passed through the job's network."""

    def finished(self, job_id: str, result: JobResult) -> None:
        """Note that a job's result is stored."""


class RunListener:
    """Receives the events of a run."""

    def warning(self, message: str) -> None:
        """Receive a warning, before anything is computed."""

    def watching(self, jobs: Sequence[Job]) -> AbstractContextManager[JobObserver]:
        """Return a context in which these jobs are computed, and which gives their observer."""
        return nullcontext(JobObserver())

    def finished(self, results: Results) -> None:
        """Receive the results at the end, if anything was computed."""
