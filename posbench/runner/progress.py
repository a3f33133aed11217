"""Progress of a run on a console: warnings, a progress bar, and the reasons of failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from posbench.bench.plan import Job
from posbench.core.text import ascii_form, printable
from posbench.runner.observers import JobObserver, RunListener

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult
    from posbench.runner.results import Results


class Display(RunListener):
    """Shows the events of a run on a console.

    Args:
        console: the console of the progress bar, on standard error.
        say: prints a line in a style.
        quiet: show no bar and no summary.
    """

    def __init__(self, console: Console, say: Callable[[str, str], None], *, quiet: bool = False) -> None:
        self._console = console
        self._say = say
        self._quiet = quiet

    def warning(self, message: str) -> None:
        self._say(f"posbench: warning: {message}", "yellow")

    def watching(self, jobs: Sequence[Job]) -> JobProgress:
        return JobProgress(self._console, jobs, self._say, quiet=self._quiet)

    def finished(self, results: Results) -> None:
        if not self._quiet:
            self._say(results.summary(), "")


class JobProgress(JobObserver):
    """A progress bar that counts images, and lines about failures. Use it as a context manager.

    Args:
        console: the console of the bar; nothing is drawn unless it is a terminal or a notebook.
        jobs: the jobs that will be computed.
        say: prints a line in a style.
        quiet: draw no bar.
    """

    def __init__(
        self, console: Console, jobs: Sequence[Job], say: Callable[[str, str], None], *, quiet: bool = False
    ) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("images{task.fields[rate]}, left"),
            TimeRemainingColumn(compact=True),
            # A narrow terminal cuts the end of the job's name, not the numbers.
            TextColumn("{task.fields[title]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            console=console,
            disable=quiet or not (console.is_terminal or console.is_jupyter),
            transient=True,
        )
        self._form = ascii_form if console.options.ascii_only else printable
        self._say = say
        self._jobs = {job.id: job for job in jobs}
        self._job_count = len(jobs)
        self._finished = 0
        total = sum(job.n_train + job.n_test for job in jobs)
        self._task = self._bar.add_task(f"job 0/{self._job_count}", total=total, rate="", title="")
        self._images: Counter[str] = Counter()

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, job_id: str) -> None:
        description = f"job {self._finished + 1}/{self._job_count}"
        self._bar.update(self._task, description=description, title=escape(self._form(self._jobs[job_id].title)))

    def progress(self, job_id: str, images: int) -> None:
        self._images[job_id] += images
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=images, rate=f", {speed:.0f}/s" if speed else "")

    def finished(self, job_id: str, result: JobResult) -> None:
        job = self._jobs[job_id]
        self._finished += 1
        # A job that failed or was skipped has passed fewer images than planned.
        self._bar.update(self._task, advance=job.n_train + job.n_test - self._images.pop(job_id, 0))
        for reason in result.failures:
            self._say(f"posbench: {job.title}: {reason}", "red")
