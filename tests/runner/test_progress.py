"""What somebody who watches a run is shown."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from posbench.bench.engine import JobResult
from posbench.bench.plan import Plan
from posbench.bench.records import Outcome
from posbench.runner.progress import Display
from posbench.runner.results import Results, Spent
from tests.factories import plan


def shown(*, quiet: bool) -> list[str]:
    """The lines said of a run of one job, which fails."""
    said: list[str] = []
    made: Plan = plan()
    display = Display(
        Console(file=io.StringIO()), lambda message, style: said.append(f"{style}|{message}"), quiet=quiet
    )
    [(job, cells)] = made.jobs()
    display.warned("mind the gap")
    with display.attend([job]) as observer:
        observer.started(job)
        observer.saw(job, 4)
        observer.finished(job, JobResult([Outcome(cell.identity(), "failed", "no luck") for cell in cells]))
    spent = Spent({"failed": 1}, {"images": 0.5, "readout": 1.25}, 2.0)
    display.heard(Results(made, tuple(made.tasks()), "cpu", Path("kept.db"), spent=spent))
    return said


def test_warnings_failures_and_the_summary_are_said() -> None:
    assert shown(quiet=False) == [
        "yellow|posbench: warning: mind the gap",
        "red|posbench: net (imagenet:net@1), zero, photos: no luck",
        "|1 jobs computed, 1 failed, 0 found in 'kept.db'; 2.0 s (images 0.5, readout 1.2)",
    ]


def test_quietly_only_what_is_wrong() -> None:
    assert [line.partition("|")[0] for line in shown(quiet=True)] == ["yellow", "red"]
