"""Tests of merging: nothing is lost or doubled, and contradictions are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posbench.bench.plan import Plan
from posbench.bench.records import Example, Measurement, Outcome, Score
from posbench.core.errors import UsageError
from posbench.store.merge import Merged, merge
from posbench.store.store import TOLERANCE, Store
from tests.conftest import Ran
from tests.factories import metric, padding, plan, scored, target

EXAMPLES = [Example(name, bytes(12), bytes(8)) for name in ("a@1", "b@2")]

Reading = Measurement


def several() -> Plan:
    """Three jobs of two cells."""
    return plan(
        targets=[target("H"), target("V")], paddings=[padding(name) for name in ("zero", "circular", "reflect")]
    )


def fill(path: Path, made: Plan, make: Callable[..., Outcome] = scored, measurements: Any = (), **more: Any) -> Path:
    with Store(path) as store:
        for job, cells in made.jobs():
            store.save(job, cells, [make(cell, **more) for cell in cells], {"from": path.name}, measurements)
    return path


def content(path: Path) -> tuple[Any, ...]:
    """All contents of a store, without the numbers of its runs."""
    with Store(path, must_exist=True) as store:
        records = sorted(store.records(), key=lambda record: record.cell_id)
        measurements = sorted(
            store.measurements(), key=lambda record: (record.job_id, record.measurement.metric, record.measurement.tap)
        )
        examples = store.examples()
        return (
            [(replace(r, run_id=0), store.provenance(r.run_id), examples.get(r.cell_id)) for r in records],
            [(replace(r, run_id=0), store.provenance(r.run_id)) for r in measurements],
        )


def failed(cell: Any) -> Outcome:
    return Outcome(cell.identity(), "failed", "RuntimeError: out of luck")


def test_the_shards_of_a_plan_are_the_plan(tmp_path: Path) -> None:
    made = several()
    measurement = Measurement("modes", "1", value=2.5, by_photograph={"a@1": 2.5}, picture=b"\0" * 16, columns=2)
    parts = [
        fill(tmp_path / f"{i}.db", made.shard(i, 2), measurements=[measurement], examples=EXAMPLES) for i in (1, 2)
    ]
    assert merge(parts, tmp_path / "all.db") == Merged(6)
    cells, measurements = content(tmp_path / "all.db")
    assert [(record.cell_id, kept) for record, _, kept in cells] == [
        (i, EXAMPLES) for i in sorted(c.id for c in made.cells)
    ]
    assert len(measurements) == 3
    # Each cell's provenance is still that of its own run.
    expected = [content(part) for part in parts]
    for kind, merged in enumerate((cells, measurements)):
        assert sorted(map(repr, merged)) == sorted(repr(record) for part in expected for record in part[kind])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db", "all.db"]


def test_what_both_hold_alike_is_kept_once(tmp_path: Path) -> None:
    made = several()
    first = fill(tmp_path / "1.db", made, value=0.5)
    second = fill(tmp_path / "2.db", made, value=0.5 + 0.9 * TOLERANCE)
    assert merge([first, second], tmp_path / "all.db") == Merged(6, 6)
    assert content(tmp_path / "all.db") == content(first)


MAP = np.linspace(0, 1, 16, dtype="<f4")
SKIPPED: dict[str, Any] = {"status": "skipped", "scores": [], "reason": "no room"}


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"value": 0.5}, {"value": 0.5 + 1.1 * TOLERANCE}, "spc of cell {cell} is 0.5011 there and 0.5 here"),
        ({"reach": 4.0}, {"reach": 4.5}, "the reach of cell {cell} is 4.5 there and 4 here"),
        ({"degenerate": 0.0}, {"degenerate": 0.25}, "share of degenerate maps of cell {cell} is 0.25 there and 0 here"),
        (
            {"mean_map": MAP},
            {"mean_map": MAP + np.eye(4, dtype="<f4").ravel() / 8},
            "map of cell {cell} differs by 0.125",
        ),
        ({"mean_map": MAP}, {"mean_map": MAP[:9]}, "the mean map of cell {cell} differs by Inf"),
        ({}, SKIPPED, "cell {cell} is skipped there and ok here"),
        (SKIPPED, {}, "cell {cell} is ok there and skipped here"),
        ({"measurements": 1.0}, {"measurements": 2.0}, "modes of job {job}, tap all is 2 there and 1 here"),
        ({"measurements": 1.0}, {"measurements": None}, "modes of job {job} is skipped there and ok here"),
    ],
)
def test_results_that_contradict_each_other_are_refused(
    ours: dict[str, Any], theirs: dict[str, Any], message: str, posbench: Callable[..., Ran]
) -> None:
    made = plan(targets=[target("H")])
    for name, kept in (("1.db", ours), ("2.db", theirs)):
        more = {key: value.tobytes() if key == "mean_map" else value for key, value in kept.items()}
        value = more.pop("measurements", 0.0)
        measurement = Measurement("modes", "1", "all", "skipped" if value is None else "ok", value=value)
        fill(Path(name), made, measurements=[measurement], **more)
    before = [Path(name).read_bytes() for name in ("1.db", "2.db")]
    ran = posbench("merge", "1.db", "2.db", "-o", "all.db")
    said = message.format(cell=made.cells[0].id[:12], job=made.cells[0].job.id[:12])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("posbench: '2.db' conflicts with what was merged before it: ")
    assert ran.err.endswith(f"{said}; recompute one of them with --force\n")
    assert [Path(name).read_bytes() for name in ("1.db", "2.db")] == before
    assert sorted(path.name for path in Path().iterdir()) == ["1.db", "2.db"]


def test_what_is_said_to_have_been_found_again_is_true(posbench: Callable[..., Ran]) -> None:
    made = several()
    first, second = made.shard(1, 3), made.shard(2, 3)
    fill(Path("1.db"), first)
    fill(Path("2.db"), first, failed)
    fill(Path("3.db"), second, failed)
    for stores, said in (
        ("1.db", "1 stores joined in 'all.db': 2 cells\n"),
        ("1.db 3.db", "2 stores joined in 'all.db': 4 cells\n"),
        ("1.db 1.db 3.db", "3 stores joined in 'all.db': 4 cells; 2 were found more than once, alike\n"),
        ("2.db 1.db", "2 stores joined in 'all.db': 2 cells; 2 had failed in one store and not in another\n"),
    ):
        assert posbench("merge", *stores.split(), "-o", "all.db") == Ran(0, said, "")
        Path("all.db").unlink()


def test_what_only_one_of_them_kept_is_kept(posbench: Callable[..., Ran]) -> None:
    """A published folder has no maps."""
    fill(Path("1.db"), plan(targets=[target("H")]), mean_map=MAP.tobytes(), reach=2.0, examples=EXAMPLES)
    assert posbench("publish", "out", "--store", "1.db", "--no-report").code == 0
    assert posbench("merge", "out", "1.db", "-o", "all.db").code == 0
    assert content(Path("all.db")) == content(Path("1.db"))


@pytest.mark.parametrize("turned", [False, True])
def test_what_only_one_of_them_knows_is_taken_from_it(turned: bool, posbench: Callable[..., Ran]) -> None:
    """An older schema had no column for the reach."""
    whole = {"mean_map": MAP.tobytes(), "reach": 2.0, "degenerate": 0.25}
    made = plan(targets=[target("H")])
    fill(Path("old.db"), made)
    fill(Path("new.db"), made, **whole)
    stores = ("new.db", "old.db") if turned else ("old.db", "new.db")
    assert posbench("merge", *stores, "-o", "all.db").code == 0
    with Store(Path("all.db")) as store:
        [record] = store.records()
    assert {name: getattr(record.outcome, name) for name in whole} == whole


@pytest.mark.parametrize("turned", [False, True])
def test_a_result_takes_the_place_of_a_failure_whichever_comes_first(turned: bool, tmp_path: Path) -> None:
    made = plan(targets=[target("H")])
    bad = fill(tmp_path / "bad.db", made, failed, measurements=[Measurement("modes", "1", "all", "failed", "no")])
    good = fill(tmp_path / "good.db", made, examples=EXAMPLES, measurements=[Measurement("modes", "1", "2", value=1.0)])
    assert merge([good, bad] if turned else [bad, good], tmp_path / "all.db").cells == 1
    assert content(tmp_path / "all.db") == content(good)


def test_other_metrics_of_a_cell_come_too(tmp_path: Path) -> None:
    made = plan(targets=[target("H")], metrics=[metric("spc"), metric("mae")])
    first, second = (fill(tmp_path / f"{name}.db", made, metric=name) for name in ("spc", "mae"))
    merge([first, second], tmp_path / "all.db")
    with Store(tmp_path / "all.db") as store:
        [record] = store.records()
    assert {score.metric for score in record.outcome.scores} == {"spc", "mae"}
    assert all(isinstance(score, Score) for score in record.outcome.scores)


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    first = fill(tmp_path / "1.db", several())
    (tmp_path / "all.db").write_text("mine")
    with pytest.raises(UsageError, match=r"all\.db' exists: name another file with --output"):
        merge([first], tmp_path / "all.db")
    assert (tmp_path / "all.db").read_text() == "mine"
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        merge([first], tmp_path / "nowhere" / "all.db")


def test_what_is_no_whole_store_is_named_and_nothing_is_made(posbench: Callable[..., Ran]) -> None:
    fill(Path("1.db"), several())
    damaged = bytearray(fill(Path("2.db"), plan(targets=[target(f"t{i}") for i in range(50)])).read_bytes())
    damaged[-4096:-4000] = b"\x55" * 96
    Path("2.db").write_bytes(damaged)
    fill(Path("odd.db"), several())
    with sqlite3.connect("odd.db") as connection:
        connection.execute("UPDATE scores SET value = 9e999")
    connection.close()
    before = content_of_folder()
    for name, message in (
        ("2.db", "store '2.db' is damaged (malformed: "),
        ("odd.db", "store 'odd.db' is damaged (malformed: value: inf is no finite number)"),
        ("3.db", "there is no store at '3.db'"),
    ):
        ran = posbench("merge", "1.db", name, "-o", "all.db")
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert ran.err.startswith(f"posbench: {message}")
        assert content_of_folder() == before


def content_of_folder() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def test_reading_asks_for_no_lock_to_write(tmp_path: Path) -> None:
    path = fill(tmp_path / "1.db", several())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # nobody else could begin to write now
    assert len(content(path)[0]) == 6
    assert merge([path], tmp_path / "all.db").cells == 6
    other.close()
