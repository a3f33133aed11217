"""The run that the command line and Python share: in which order its audience hears what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posbench.bench.config import RunConfig, load_config
from posbench.bench.engine import JobResult
from posbench.bench.plan import Job
from posbench.core.errors import UsageError
from posbench.plugin.registry import load_registry
from posbench.runner import session as running
from posbench.runner.results import Results
from posbench.runner.session import SilentListener
from tests.conftest import Ran

SMALL = {
    "images": "leaves",
    "targets": "H",
    "paddings": "zero,circular",
    "precision": "fp32",
    "device": "cpu",
    "image_size": 64,
    "train_count": 4,
    "test_count": 2,
}


class Notes(SilentListener):
    """An audience that writes down what it hears."""

    def __init__(self) -> None:
        self.heard_of: list[str] = []

    def warned(self, warning: str) -> None:
        self.heard_of.append("warned")

    @contextmanager
    def attend(self, jobs: Sequence[Job]) -> Iterator[Notes]:
        self.heard_of.append(f"attends {len(jobs)}")
        yield self
        self.heard_of.append("leaves")

    def started(self, job: Job) -> None:
        self.heard_of.append("started")

    def finished(self, job: Job, result: JobResult) -> None:
        self.heard_of.append(f"finished {result.status}")

    def heard(self, results: Results) -> None:
        assert results.spent
        self.heard_of.append(f"heard of {sum(results.spent.states.values())}")


def selected(**options: Any) -> RunConfig:
    return load_config(None, {"backbones": "tiny", "store": "kept.db", **SMALL, **options})


@pytest.mark.usefixtures("tiny", "posbench")
def test_an_audience_hears_warnings_then_jobs_then_the_results() -> None:
    notes = Notes()
    running.run(selected(), load_registry(), notes)
    each = ["started", "finished ok"]
    assert notes.heard_of == ["warned", "attends 2", *each, *each, "leaves", "heard of 2"]


@pytest.mark.usefixtures("tiny", "posbench")
def test_of_what_is_stored_nothing_is_heard() -> None:
    first = running.run(selected(), load_registry(), SilentListener())
    notes = Notes()
    again = running.run(selected(), load_registry(), notes)
    assert notes.heard_of == ["warned"]
    assert again.spent is None
    assert list(again.rows) == list(first.rows)


@pytest.mark.usefixtures("posbench")
def test_a_shard_without_jobs_has_an_empty_plan(tiny: str) -> None:
    results = running.run(selected(shard="9/9"), load_registry(), SilentListener())
    assert results.plan.cells == ()
    assert not Path("kept.db").exists()


def test_what_is_to_be_mended_is_raised_before_anything_is_made(posbench: Callable[..., Ran]) -> None:
    with pytest.raises(UsageError, match="unknown backbone"):
        running.run(selected(backbones="no-such-network"), load_registry(), SilentListener())
    assert not Path("kept.db").exists()
