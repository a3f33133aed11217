"""Progress on a console: the messages, and the bar."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posbench.bench.engine import JobResult
from posbench.bench.plan import Job
from posbench.bench.records import Outcome
from posbench.runner.progress import Display, JobProgress
from posbench.runner.results import Results, Spent
from tests.factories import plan

SMALL = plan()
[(JOB, CELLS)] = SMALL.jobs()
FAILED = JobResult([Outcome(cell.identity(), "failed", "no luck") for cell in CELLS])
SKIPPED = JobResult([Outcome(cell.identity(), "skipped", "too small") for cell in CELLS])


def messages(*, quiet: bool) -> list[str]:
    """Return the lines that are shown of a run of one job, which fails."""
    lines: list[str] = []
    display = Display(
        Console(file=io.StringIO()), lambda message, style: lines.append(f"{style}|{message}"), quiet=quiet
    )
    display.warning("mind the gap")
    with display.watching([JOB]) as observer:
        observer.started(JOB.id)
        observer.progress(JOB.id, 4)
        observer.finished(JOB.id, FAILED)
    spent = Spent({"failed": 1}, {"images": 0.5, "readout": 1.25}, 2.0)
    display.finished(Results(SMALL, tuple(SMALL.tasks()), "cpu", Path("kept.db"), spent=spent))
    return lines


def test_warnings_failures_and_the_summary_are_said() -> None:
    assert messages(quiet=False) == [
        "yellow|posbench: warning: mind the gap",
        "red|posbench: net (imagenet:net@1), zero, photos: no luck",
        "|1 jobs computed, 1 failed, 0 found in 'kept.db'; 2.0 s (images 0.5, readout 1.2)",
    ]


def test_quietly_only_what_is_wrong() -> None:
    assert [line.partition("|")[0] for line in messages(quiet=True)] == ["yellow", "red"]


def bar(jobs: list[Job], *, quiet: bool = False, **options: Any) -> tuple[JobProgress, io.StringIO]:
    """Return a bar, and the stream that it is drawn on."""
    stream = io.StringIO()
    return JobProgress(Console(file=stream, **options), jobs, lambda message, style: None, quiet=quiet), stream


@pytest.mark.parametrize(("options", "quiet"), [({}, False), ({"force_terminal": True}, True)])
def test_progress_is_silent_off_a_terminal_and_when_quiet(options: dict[str, Any], quiet: bool) -> None:
    progress, stream = bar([JOB], quiet=quiet, **options)
    with progress:
        progress.started(JOB.id)
        progress.progress(JOB.id, 8)
        progress.finished(JOB.id, SKIPPED)
    assert stream.getvalue() == ""


def test_progress_on_a_terminal_names_the_job_and_counts_images() -> None:
    progress, stream = bar([JOB, JOB], force_terminal=True, width=140, color_system=None)
    with progress:
        progress.started(JOB.id)
        progress.progress(JOB.id, 8)
        progress._bar.refresh()
        assert "job 1/2" in stream.getvalue()
        assert "net (imagenet:net@1), zero" in stream.getvalue()
        assert "8/24" in stream.getvalue()
        # A job that was skipped half-way counts as done.
        progress.finished(JOB.id, SKIPPED)
        progress.started(JOB.id)
        progress._bar.refresh()
        assert "job 2/2" in stream.getvalue()
        assert "12/24" in stream.getvalue()


def test_progress_in_a_narrow_terminal_still_counts_and_tells_the_time_left() -> None:
    progress, stream = bar([JOB, JOB], force_terminal=True, width=60, color_system=None)
    with progress:
        progress.started(JOB.id)
        progress.progress(JOB.id, 8)
        progress._bar.refresh()
    line = stream.getvalue().splitlines()[-1]
    assert re.search(r"job 1/2 .* 8/24 images, left \S+ net", stream.getvalue())
    assert len(line) <= 80  # with the characters that move the cursor
