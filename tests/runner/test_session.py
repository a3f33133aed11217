"""The run that the command line and Python share: the order of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posbench.bench import resolve
from posbench.bench.config import RunConfig, load_config
from posbench.bench.engine import JobResult
from posbench.bench.plan import Job, Plan
from posbench.core.errors import UsageError
from posbench.plugin.registry import load_registry
from posbench.runner.observers import JobObserver, RunListener
from posbench.runner.results import Results
from posbench.runner.session import run
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


class JobLog(JobObserver):
    """Appends the events of jobs to a list."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def started(self, job_id: str) -> None:
        self.events.append("started")

    def finished(self, job_id: str, result: JobResult) -> None:
        self.events.append(f"finished {result.status}")


class RunLog(RunListener):
    """Keeps a list of the events of a run."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, message: str) -> None:
        self.events.append("warning")

    @contextmanager
    def watching(self, jobs: Sequence[Job]) -> Iterator[JobLog]:
        self.events.append(f"watching {len(jobs)}")
        yield JobLog(self.events)
        self.events.append("watched")

    def finished(self, results: Results) -> None:
        assert results.spent
        self.events.append(f"finished {sum(results.spent.states.values())}")


def configured(**options: Any) -> RunConfig:
    return load_config(None, {"backbones": "tiny", "store": "kept.db", **SMALL, **options})


@pytest.mark.usefixtures("tiny", "posbench")
def test_an_audience_hears_warnings_then_jobs_then_the_results() -> None:
    log = RunLog()
    run(configured(), load_registry(), log)
    each = ["started", "finished ok"]
    assert log.events == ["warning", "watching 2", *each, *each, "watched", "finished 2"]


@pytest.mark.usefixtures("tiny", "posbench")
def test_of_what_is_stored_nothing_is_heard() -> None:
    first = run(configured(), load_registry(), RunListener())
    log = RunLog()
    again = run(configured(), load_registry(), log)
    assert log.events == ["warning"]
    assert again.spent is None
    assert list(again.rows) == list(first.rows)


@pytest.mark.usefixtures("posbench")
def test_a_shard_without_jobs_has_an_empty_plan(tiny: str) -> None:
    results = run(configured(shard="9/9"), load_registry(), RunListener())
    assert results.plan.cells == ()
    assert not Path("kept.db").exists()


def test_what_is_to_be_mended_is_raised_before_anything_is_made(posbench: Callable[..., Ran]) -> None:
    with pytest.raises(UsageError, match="unknown backbone"):
        run(configured(backbones="no-such-network"), load_registry(), RunListener())
    assert not Path("kept.db").exists()


@pytest.mark.usefixtures("tiny", "posbench")
def test_a_run_in_this_process_plans_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    def with_controls(*arguments: Any) -> Plan:
        plans.append(add_controls(*arguments))
        return plans[-1]

    add_controls = resolve.with_controls
    monkeypatch.setattr(resolve, "with_controls", with_controls)
    results = run(configured(), load_registry(), RunListener())
    assert results.spent is not None
    assert plans == [results.plan]
