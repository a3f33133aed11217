"""The simulation of many jobs, with few: what it counts must come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulate_scale import simulate, span


def test_nothing_is_lost_or_computed_twice(tmp_path: Path) -> None:
    found = simulate(10, 12, 2, tmp_path)
    assert found.jobs == 240
    assert found.statuses.total() == 5 * 240
    assert found.computed_twice == 0
    # Those that failed are what a run would try again.
    assert found.left == found.statuses["failed"] // 5 > 0
    assert found.statuses["skipped"] > 0
    assert len(found.durations) >= 240
    # A job keeps five maps of 26 × 26 float32, and fifteen scores of 15 or 64 photographs, of at least 30 bytes each.
    assert found.size / 240 > 5 * 26 * 26 * 4 + 15 * 39 * 30


@pytest.mark.parametrize(("workers", "expected"), [(1, 10.0), (2, 5.0), (3, 4.0), (9, 4.0)])
def test_the_last_worker_ends_by_hand(workers: int, expected: float) -> None:
    """Jobs of 4, 3, 2 and 1: two workers do 4 and 1, and 3 and 2."""
    assert span([4.0, 3.0, 2.0, 1.0], workers) == expected
