"""The simulation of benchmarks/simulate_scale.py, with few jobs: its counts add up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulate_scale import makespan, simulate


def test_nothing_is_lost_or_computed_twice(tmp_path: Path) -> None:
    figures = simulate(10, 12, 2, tmp_path)
    assert figures.jobs == 240
    assert figures.statuses.total() == 5 * 240
    assert figures.computed_twice == 0
    # The next run would compute the failed jobs again.
    assert figures.remaining == figures.statuses["failed"] // 5 > 0
    assert figures.statuses["skipped"] > 0
    assert len(figures.durations) >= 240
    # A job stores five maps of 26 × 26 float32, and 15 scores of 15 or 64 photographs, each at least 30 bytes long.
    assert figures.size / 240 > 5 * 26 * 26 * 4 + 15 * 39 * 30


@pytest.mark.parametrize(("workers", "expected"), [(1, 10.0), (2, 5.0), (3, 4.0), (9, 4.0)])
def test_the_last_worker_ends_by_hand(workers: int, expected: float) -> None:
    """Jobs of 4, 3, 2 and 1: two workers do 4 and 1, and 3 and 2."""
    assert makespan([4.0, 3.0, 2.0, 1.0], workers) == expected
