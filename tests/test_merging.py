"""Stores joined: nothing lost, nothing twice, nothing that contradicts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posbench.errors import UsageError
from posbench.merging import Merged, merge
from posbench.plan import Plan
from posbench.store import CONFLICT, Example, Outcome, Store, StoredReading, StoredScore
from tests.made import metric, padding, plan, scored, target

EXAMPLES = [Example(name, bytes(12), bytes(8)) for name in ("a@1", "b@2")]

Reading = StoredReading


def several() -> Plan:
    """Three jobs of two cells."""
    return plan(
        targets=[target("H"), target("V")], paddings=[padding(name) for name in ("zero", "circular", "reflect")]
    )


def fill(path: Path, made: Plan, make: Callable[..., Outcome] = scored, readings: Any = (), **more: Any) -> Path:
    with Store(path) as store:
        for job, cells in made.jobs():
            store.save(job, cells, [make(cell, **more) for cell in cells], {"from": path.name}, readings)
    return path


def content(path: Path) -> tuple[Any, ...]:
    """All that a store knows, whatever its runs are numbered."""
    with Store(path, must_exist=True) as store:
        records = sorted(store.records(), key=lambda one: one.cell_id)
        readings = sorted(store.readings(), key=lambda one: (one.job_id, one.reading.metric, one.reading.tap))
        examples = store.examples()
        return (
            [(replace(one, run_id=0), store.provenance(one.run_id), examples.get(one.cell_id)) for one in records],
            [(replace(one, run_id=0), store.provenance(one.run_id)) for one in readings],
        )


def failed(cell: Any) -> Outcome:
    return Outcome(cell.identity(), "failed", "RuntimeError: out of luck")


def test_the_shards_of_a_plan_are_the_plan(tmp_path: Path) -> None:
    made = several()
    reading = StoredReading("modes", "1", value=2.5, by_photograph={"a@1": 2.5}, picture=b"\0" * 16, columns=2)
    parts = [fill(tmp_path / f"{i}.db", made.shard(i, 2), readings=[reading], examples=EXAMPLES) for i in (1, 2)]
    assert merge(parts, tmp_path / "all.db") == Merged(6, 0)
    cells, readings = content(tmp_path / "all.db")
    assert [(one.cell_id, kept) for one, _, kept in cells] == [(i, EXAMPLES) for i in sorted(c.id for c in made.cells)]
    assert len(readings) == 3
    # Each cell's provenance is still that of its own run.
    expected = [content(part) for part in parts]
    for kind, found in enumerate((cells, readings)):
        assert sorted(map(repr, found)) == sorted(repr(one) for part in expected for one in part[kind])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db", "all.db"]


def test_what_both_hold_alike_is_kept_once(tmp_path: Path) -> None:
    made = several()
    first = fill(tmp_path / "1.db", made, value=0.5)
    second = fill(tmp_path / "2.db", made, value=0.5 + 0.9 * CONFLICT)
    assert merge([first, second], tmp_path / "all.db") == Merged(6, 6)
    assert content(tmp_path / "all.db") == content(first)


def test_results_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    made = plan(targets=[target("H")])
    first = fill(tmp_path / "1.db", made, value=0.5)
    second = fill(tmp_path / "2.db", made, value=0.5 + 1.1 * CONFLICT)
    before = [path.read_bytes() for path in (first, second)]
    with pytest.raises(UsageError, match=rf"2\.db.*spc of cell {made.cells[0].id[:12]} is 0\.5011 there and 0\.5 here"):
        merge([first, second], tmp_path / "all.db")
    assert [path.read_bytes() for path in (first, second)] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db"]


def test_measures_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    made = plan(targets=[target("H")])
    paths = [fill(tmp_path / f"{i}.db", made, readings=[StoredReading("modes", "1", value=i)]) for i in (1, 2)]
    with pytest.raises(UsageError, match=r"modes of job [0-9a-f]{12}, tap all is 2 there and 1 here"):
        merge(paths, tmp_path / "all.db")


@pytest.mark.parametrize("turned", [False, True])
def test_a_result_takes_the_place_of_a_failure_whichever_comes_first(turned: bool, tmp_path: Path) -> None:
    made = plan(targets=[target("H")])
    bad = fill(tmp_path / "bad.db", made, failed, readings=[StoredReading("modes", "1", "all", "failed", "no")])
    good = fill(tmp_path / "good.db", made, examples=EXAMPLES, readings=[StoredReading("modes", "1", "2", value=1.0)])
    assert merge([good, bad] if turned else [bad, good], tmp_path / "all.db").cells == 1
    assert content(tmp_path / "all.db") == content(good)


def test_other_metrics_of_a_cell_come_too(tmp_path: Path) -> None:
    made = plan(targets=[target("H")], metrics=[metric("spc"), metric("mae")])
    first, second = (fill(tmp_path / f"{name}.db", made, metric=name) for name in ("spc", "mae"))
    merge([first, second], tmp_path / "all.db")
    with Store(tmp_path / "all.db") as store:
        [record] = store.records()
    assert {score.metric for score in record.outcome.scores} == {"spc", "mae"}
    assert all(isinstance(score, StoredScore) for score in record.outcome.scores)


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    first = fill(tmp_path / "1.db", several())
    (tmp_path / "all.db").write_text("mine")
    with pytest.raises(UsageError, match=r"all\.db' exists: name another file with --output"):
        merge([first], tmp_path / "all.db")
    assert (tmp_path / "all.db").read_text() == "mine"
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        merge([first], tmp_path / "nowhere" / "all.db")


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    first = fill(tmp_path / "1.db", several())
    (tmp_path / "2.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(UsageError, match=r"2\.db' is not a posbench store"):
        merge([first, tmp_path / "2.db"], tmp_path / "all.db")
    with pytest.raises(UsageError, match=r"no store at .*3\.db"):
        merge([first, tmp_path / "3.db"], tmp_path / "all.db")
    assert not (tmp_path / "all.db").exists()


def test_a_damaged_store_is_refused_before_anything_is_merged(tmp_path: Path) -> None:
    first = fill(tmp_path / "1.db", several())
    second = fill(tmp_path / "2.db", plan(targets=[target(f"t{i}") for i in range(50)]))
    content = bytearray(second.read_bytes())
    content[-4096:-4000] = b"\x55" * 96
    second.write_bytes(content)
    with pytest.raises(UsageError, match=r"2\.db' is damaged"):
        merge([first, second], tmp_path / "all.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db"]
    assert second.read_bytes() == bytes(content)


def test_reading_asks_for_no_lock_to_write(tmp_path: Path) -> None:
    path = fill(tmp_path / "1.db", several())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # nobody else could begin to write now
    assert len(content(path)[0]) == 6
    assert merge([path], tmp_path / "all.db").cells == 6
    other.close()
