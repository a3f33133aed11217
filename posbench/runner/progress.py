"""Shows on a console how a run goes on: warnings, a progress bar, and why jobs failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from posbench.bench.plan import Job
from posbench.report.terminal import JobProgress

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult
    from posbench.runner.results import Results


class Display:
    """The audience of a run that somebody watches.

    Args:
        console: for the bar, on standard error.
        say: prints a line in a style.
        quiet: no bar and no summary.
    """

    def __init__(self, console: Console, say: Callable[[str, str], None], *, quiet: bool = False) -> None:
        self._console = console
        self._say = say
        self._quiet = quiet

    def warned(self, warning: str) -> None:
        self._say(f"posbench: warning: {warning}", "yellow")

    @contextmanager
    def attend(self, jobs: Sequence[Job]) -> Iterator[_Watched]:
        images = sum(job.n_train + job.n_test for job in jobs)
        with JobProgress(self._console, len(jobs), images, quiet=self._quiet) as bar:
            yield _Watched(bar, self._say)

    def heard(self, results: Results) -> None:
        if not self._quiet:
            self._say(results.summary(), "")


class _Watched:
    """An observer: moves the bar, and says what fails."""

    def __init__(self, bar: JobProgress, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._bar = bar
        self.started = bar.started
        self.saw = bar.saw

    def finished(self, job: Job, result: JobResult) -> None:
        self._bar.finished(job, result)
        for reason in result.failures:
            self._say(f"posbench: {job.title}: {reason}", "red")
