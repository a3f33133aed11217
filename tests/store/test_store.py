"""Tests of the store: results come back as they were, jobs are stored whole or not at all."""

from __future__ import annotations

import re
import sqlite3
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posbench import __version__
from posbench.bench.plan import Plan, Task, identify
from posbench.bench.records import Example, Measurement, Outcome, Score
from posbench.core.errors import UsageError
from posbench.report.labels import half_width
from posbench.report.rows import row
from posbench.store.schema import SCHEMA_VERSION
from posbench.store.store import Store
from tests.conftest import Ran
from tests.factories import NET, TRAINED, UNTRAINED, control, metric, padding, plan, readout, scored, target

OLD = Path(__file__).parents[1] / "stores" / "schema-1.db"
EXAMPLE = Example("a@1", bytes(range(12)), np.array([[0.5, -1], [2, 0.25]], "<f2").tobytes())
SPC, MAE = metric("spc"), metric("mae", higher_is_better=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def two() -> Plan:
    """One job, two cells."""
    return plan(targets=[target("H"), target("V")])


def save(store: Store, made: Plan, make: Callable[..., Outcome] = scored, **more: Any) -> None:
    """Store an outcome for every cell of a plan, job by job."""
    for job, cells in made.jobs():
        store.save(job, cells, [make(cell, **more) for cell in cells], {"job": job.title})


def test_an_outcome_comes_back_as_it_was(path: Path) -> None:
    made = two()
    mean_map = struct.pack("<4f", 0, 0.25, 0.5, 1)
    scores = [
        Score("mae", "2", 0.1 + 0.2, 1e-300, 1e300, {"a@1": 0.1, "b@2": 1 / 3}),
        Score("spc", "1", -1 / 3, None, None, {}),
    ]
    outcomes = [
        Outcome(made.cells[0].identity(), "ok", "", 2, 0.125, 1.5, mean_map, scores),
        Outcome(made.cells[1].identity(), "skipped", "no room", seconds=0.25, scores=[]),
    ]
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        store.save(job, cells, outcomes, {"torch": "2", "seconds": {"images": 0.1}})
    with Store(path, must_exist=True) as store:
        records = store.records()
        (run,) = {record.run_id for record in records}
        assert store.provenance(run) == {"torch": "2", "seconds": {"images": 0.1}}
    assert [record.outcome for record in records] == outcomes
    assert [record.cell_id for record in records] == [cell.id for cell in cells]
    assert {record.posbench_version for record in records} == {__version__}
    assert all(record.created.endswith("+00:00") for record in records)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(value=st.floats(allow_nan=False, allow_infinity=False), reason=st.text(st.characters(exclude_categories=["Cs"])))
def test_every_number_and_text_comes_back(value: float, reason: str, path: Path) -> None:
    made = plan()
    with Store(path) as store:
        save(store, made, value=value, half=None, reason=reason)
        [record] = store.records()
    # Control characters are not kept.
    shown = "".join(char if char.isprintable() or char in "\n\t" else " " for char in reason)
    assert record.outcome == scored(made.cells[0], value, None, reason=shown)


EVERY_KIND: list[dict[str, Any]] = [
    {},
    {"networks": [control()]},
    {"networks": [(NET, [UNTRAINED])], "paddings": [padding("edge", "3")]},
    {"readouts": [readout("sgd", "4", stochastic=True)], "seeds": [0, 7], "taps": ["1+2"], "precision": "bf16"},
]


@pytest.mark.parametrize("changes", EVERY_KIND)
def test_the_id_from_a_plan_is_the_id_from_a_stored_row(changes: dict[str, Any], path: Path) -> None:
    made = plan(**changes)
    with Store(path) as store:
        save(store, made)
        records = store.records()
    assert [record.cell_id for record in records] == [cell.id for cell in made.cells]
    for record, cell in zip(records, made.cells, strict=True):
        identity = record.outcome.identity
        assert record.cell_id == identify(identity)
        shown = row(record)
        assert shown["cell_id"] == record.cell_id
        for column in ("backbone", "padding", "target", "readout"):
            assert shown[column] == identity[column]["name"]
        for column in ("weights", "images", "test_images"):
            assert shown[column] == identity[column]["label"]
        for column in ("taps", "seed", "image_size", "precision", "score_at", "n_train", "n_test"):
            assert shown[column] == identity[column]
        assert (shown["backbone"], shown["weights"]) == (cell.job.backbone.name, cell.job.weights.label)
        assert (shown["n_train"], shown["seed"]) == (cell.job.n_train, cell.seed)


def test_finished_is_skipped_or_scored_by_every_metric_in_its_version(path: Path) -> None:
    made = plan(targets=[target(name) for name in "HVG"])
    [(job, cells)] = made.jobs()
    outcomes = [
        scored(cells[0]),
        Outcome(cells[1].identity(), "skipped", "no room"),
        Outcome(cells[2].identity(), "failed", "broke", scores=scored(cells[2]).scores),
    ]
    with Store(path) as store:
        assert store.finished([SPC]) == set()
        store.save(job, cells, outcomes, {})
        assert store.finished([SPC]) == {cells[0].id, cells[1].id}
        assert store.finished([SPC, MAE]) == {cells[1].id}
        assert store.finished([metric("spc", "2")]) == {cells[1].id}
        assert store.finished([]) == {cells[0].id, cells[1].id}


def test_saving_again_replaces_a_cell_and_leaves_the_others(path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        save(store, made)
        store.save(job, cells[:1], [scored(cells[0], 0.75, None)], {"again": True})
        stored = {record.cell_id: record.outcome for record in store.records()}
        # Each cell has the provenance of its own run.
        first, second = (store.provenance(record.run_id) for record in store.records())
        assert (first, second) == ({"again": True}, {"job": job.title})
    assert stored == {cells[0].id: scored(cells[0], 0.75, None), cells[1].id: scored(cells[1])}


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_result_is_not_replaced_by_a_failure_to_compute_it_again(status: str, path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        save(store, made)
        before = store.records()
        since = store.last_run()
        store.save(job, cells, [Outcome(cell.identity(), status, "boom") for cell in cells], {})
        assert (store.jobs_after(since), store.jobs_after(store.last_run())) == ({job.id}, set())
        assert store.records() == before


def test_a_failure_is_replaced_by_what_came_of_the_next_attempt(path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        store.save(job, cells, [Outcome(cell.identity(), "failed", "boom") for cell in cells], {})
        store.save(job, cells, [Outcome(cell.identity(), "failed", "bang") for cell in cells], {})
        assert {record.outcome.reason for record in store.records()} == {"bang"}
        save(store, made)
        assert {record.outcome.status for record in store.records()} == {"ok"}


def test_memory_is_a_file_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(Path(":memory:")) as store:
        save(store, two())
    assert (tmp_path / ":memory:").is_file()


def test_a_metric_added_later_stands_beside_those_before(path: Path) -> None:
    made = plan()
    with Store(path) as store:
        save(store, made, metric="spc")
        save(store, made, metric="mae")
        assert store.finished([SPC, MAE]) == {made.cells[0].id}


def test_runs_with_different_metrics_do_not_undo_each_other(posbench: Callable[..., Ran]) -> None:
    for metrics in ("spc", "mae"):
        assert posbench("run", *CHEAP, "--metrics", metrics).code == 0
    for metrics in ("spc", "mae", "mae,spc"):
        assert "0 jobs with 0 cells to do" in posbench("run", *CHEAP, "--metrics", metrics, "--dry-run").out


def test_records_come_in_the_order_asked_for(path: Path) -> None:
    made = two()
    first, second = (cell.id for cell in made.cells)
    with Store(path) as store:
        save(store, made)
        assert [record.cell_id for record in store.records([second, "unknown", first])] == [second, first]
        assert store.records([]) == []
        assert len(store.records(cell_id for cell_id in (first,))) == 1


def test_a_cell_is_found_by_the_start_of_its_id(path: Path) -> None:
    made = plan(targets=[target(f"t{i}") for i in range(20)])
    wanted = made.cells[3].id
    with Store(path) as store:
        save(store, made)
        assert store.find(wanted).cell_id == wanted
        assert store.find(wanted[:12]).cell_id == wanted
        with pytest.raises(UsageError, match="20 cells start with '': give more of the id"):
            store.find("")
        # Of twenty ids in hexadecimal two begin with the same figure.
        twice = next(f for f in "0123456789abcdef" if sum(cell.id.startswith(f) for cell in made.cells) > 1)
        with pytest.raises(UsageError, match="give more of the id"):
            store.find(twice)
        with pytest.raises(UsageError, match=r"no cell in .* starts with 'xyz'"):
            store.find("xyz")


def test_a_save_that_fails_half_way_leaves_the_store_as_before(path: Path) -> None:
    made = plan(targets=[target(name) for name in "HVG"])
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        store.save(job, cells[:2], [scored(cell) for cell in cells[:2]], {"first": True})
        before = store.records()
        broken = Example("a@1", EXAMPLE.thumbnail, object())  # type: ignore[arg-type]
        outcomes = [scored(cells[0], 0.9), scored(cells[1], 0.9), scored(cells[2], examples=[broken])]
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is, nothing may stay
            store.save(job, cells, outcomes, {"second": True})
        with pytest.raises(ValueError, match="shorter"):
            store.save(job, cells, outcomes[:1], {"second": True})
        assert store.records() == before
        assert store.provenance(before[0].run_id) == {"first": True}
        store.save(job, cells, [scored(cell, 0.25) for cell in cells], {})
        assert len(store.records()) == 3
    with Store(path) as store:
        assert {record.outcome.scores[0].value for record in store.records()} == {0.25}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"scores": [Score("spc", "1", 0.5, float("-inf"), float("inf"))]}, "lo: -inf is no finite number"),
        ({"scores": [Score("spc", "1", 0.5, 0.6, 0.7)]}, "0.5, which its interval, 0.6 to 0.7, does not hold"),
        ({"scores": [Score("spc", "1", 0.5, None, None)] * 2}, "two scores by ('spc', '1')"),
        ({"degenerate": 1.5}, "degenerate: 1.5 is no share"),
    ],
)
def test_what_could_not_be_read_back_has_failed(odd: dict[str, Any], reason: str, path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    measurement = Measurement("modes", "1", value=float("nan"))
    with Store(path) as store:
        store.save(job, cells, [scored(cells[0], **odd), scored(cells[1])], {}, [measurement])
        first, second = (record.outcome for record in store.records())
        assert (first.status, first.scores) == ("failed", [])
        assert first.reason == f"what came out of it cannot be stored: {reason}"
        assert second == scored(cells[1])
        assert store.measurements()[0].measurement.status == "failed"


def test_another_process_sees_a_job_whole_or_not_at_all(path: Path) -> None:
    made = two()
    with Store(path) as writing, Store(path) as measurement:
        save(writing, made)
        assert len(measurement.records()) == 2
        save(measurement, made, value=0.75)
        assert {record.outcome.scores[0].value for record in writing.records()} == {0.75}


def test_the_schema_says_what_it_is(path: Path) -> None:
    with Store(path):
        pass
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"posb"),)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def newer(path: Path) -> None:
    with Store(path) as store:
        save(store, two())
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()


#: Each command that reads a store, or writes to one.
COMMANDS = (
    "leaderboard --store s.db",
    "measures --store s.db",
    "show 0 --store s.db",
    "compare padding=zero padding=edge --store s.db",
    "report --store s.db",
    "publish out --store s.db",
    "merge s.db -o all.db",
    "run --dry-run --store s.db",
    "run --store s.db",
)
CHEAP = (
    *("--backbones", "none", "--images", "leaves", "--image-size", "44", "--train-count", "4", "--test-count", "2"),
    *("--targets", "H", "--metrics", "spc", "--quiet"),
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (newer, f"store 's.db' has schema {SCHEMA_VERSION + 1}, newer than this posbench: update it"),
        (foreign, "'s.db' is a database, but not a posbench store: name another with --store"),
        (lambda path: path.write_bytes(b"garbage " * 500), "'s.db' is not a posbench store (file is not a database)"),
        (lambda path: path.write_text("backbone,weights\n"), "'s.db' is not a posbench store (file is not a database)"),
    ],
    ids=["newer", "foreign", "garbage", "text"],
)
def test_another_file_is_refused_and_left_alone(
    make: Callable[[Path], object], message: str, posbench: Callable[..., Ran]
) -> None:
    make(Path("s.db"))
    before = Path("s.db").read_bytes()
    for command in COMMANDS:
        ran = posbench(*command.split(), *(CHEAP if command.startswith("run") else ()))
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran
        assert ran.err.startswith(f"posbench: {message}")
    assert Path("s.db").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["s.db"]


@pytest.mark.parametrize("schema", [1, 2])
def test_an_older_store_is_read_as_it_is_and_migrated_by_what_writes(schema: int, posbench: Callable[..., Ran]) -> None:
    before = (OLD.parent / f"schema-{schema}.db").read_bytes()
    Path("s.db").write_bytes(before)
    with Store(Path("s.db"), must_exist=True) as store:
        records = store.records()
    for command in COMMANDS[:-1]:
        command = command.replace("show 0", f"show {records[0].cell_id}")
        ran = posbench(*command.split(), *(CHEAP if command.startswith("run") else ()))
        # The fixtures hold no two paddings, and the first had no measures.
        empty = command.startswith("compare") or (command.startswith("measures") and schema == 1)
        assert ran.code == (2 if empty else 0), ran
        assert Path("s.db").read_bytes() == before
    with Store(Path("all.db")) as merged:
        assert [replace(r, run_id=0) for r in merged.records()] == [replace(r, run_id=0) for r in records]
    assert posbench("run", "--store", "s.db", *CHEAP).code == 0
    with sqlite3.connect("s.db") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()
    with Store(Path("s.db")) as store:
        assert store.records()[: len(records)] == records
        assert len(store.records()) == len(records) + 1


def test_a_store_damaged_later_is_one_line(path: Path) -> None:
    with Store(path) as store:
        save(store, plan(targets=[target(f"t{i}") for i in range(50)]))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with Store(path) as store, pytest.raises(UsageError, match="name another with --store") as caught:
        store.records()
    assert "\n" not in str(caught.value)


def test_what_sqlite_would_overlook_is_damage_too(path: Path) -> None:
    with Store(path) as store:
        save(store, two())
        store.check()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE cells SET identity = replace(identity, 'zero', 'zera') WHERE rowid = 2")
    connection.commit()
    connection.close()
    with Store(path) as store, pytest.raises(UsageError, match=r"is damaged \(malformed: cell_id '\w{12}' is not that"):
        store.check()


def test_a_damaged_store_is_not_migrated(path: Path) -> None:
    content = bytearray(OLD.read_bytes())
    page = len(content) - 4096
    content[page : page + 8] = b"\x55" * 8
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is damaged .*take a copy of it, or name another with --store"):
        Store(path)
    assert path.read_bytes() == bytes(content)


@pytest.mark.parametrize(
    ("statement", "values", "message"),
    [
        ("UPDATE cells SET mean_map = ?", (b"1234567",), "a map of 7 bytes"),
        ("UPDATE cells SET mean_map = ?", (bytes(4 * 5),), "a map of 20 bytes"),
        ("UPDATE cells SET mean_map = ?", (b"\0\0\xc0\x7f" * 4,), "a map that is not finite"),
        ("UPDATE cells SET identity = ?", ('{"backbone": {"name": 3}}',), "identity.backbone.name: 3 is no text"),
        ("UPDATE cells SET identity = ?", ("[1]",), r"identity: \[1\] is no object"),
        ("UPDATE cells SET identity = ?", ("[" * 100_000,), "identity: invalid JSON: recursion limit exceeded"),
        ("UPDATE cells SET identity = ?", ("{",), "identity: invalid JSON: EOF while parsing an object"),
        (
            "UPDATE cells SET identity = replace(identity, '\"image_size\"', '\"size\"')",
            (),
            "identity.image_size: missing",
        ),
        ("UPDATE cells SET identity = replace(identity, 'zero', '\\u001b[2J')", (), r"control characters in '\\x1b"),
        (
            "UPDATE cells SET identity = replace(identity, 'size\": 64', 'size\": 0')",
            (),
            "image_size: 0 is not positive",
        ),
        ("UPDATE cells SET reason = ?", ("\x1b]0;title\x07",), "control characters in"),
        ("UPDATE scores SET metric = ?", ("\x1b[31m",), "control characters in"),
        ("UPDATE scores SET by_photograph = ?", ('{"a": "b"}',), "a photograph without a finite number"),
        ("UPDATE scores SET by_photograph = ?", ('{"a": Infinity}',), "by_photograph: invalid JSON: expected value"),
        (
            "UPDATE scores SET by_photograph = ?",
            ('{"a": 1e999}',),
            "a photograph without a finite number",
        ),
        ("UPDATE scores SET value = ?", (9e999,), "value: inf is no finite number"),
        ("UPDATE scores SET lo = ?, hi = ?", (-9e999, 9e999), "lo: -inf is no finite number"),
        ("UPDATE scores SET version = ?", ("\x1b[31m",), "version: control characters in"),
        ("UPDATE cells SET n_test_photos = ?", (-5,), "n_test_photos: -5 is negative"),
        ("UPDATE cells SET created = ?", ("\x1b[2J",), "created: control characters in"),
        ("UPDATE cells SET created = ?", ("yesterday",), "created: Invalid isoformat string"),
        ("UPDATE cells SET posbench_version = ?", ("\x9b2J",), "posbench_version: control characters in"),
        ("UPDATE cells SET reach = ?", (9e999,), "reach: inf is no finite number"),
    ],
)
def test_what_nobody_vouches_for_is_vetted(
    statement: str, values: tuple[Any, ...], message: str, path: Path, posbench: Callable[..., Ran]
) -> None:
    with Store(path) as store:
        save(store, plan(targets=[target("H")]))
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()
    for command in (("leaderboard",), ("compare", "padding=zero", "padding=zero")):
        ran = posbench(*command, "--store", str(path))
        assert (ran.code, ran.out) == (2, "")
        [line] = ran.err.splitlines()
        assert line.startswith(f"posbench: store {str(path)!r} is damaged (malformed: ")
        assert re.search(message, line)


@pytest.mark.parametrize("odd", ["[[[", "[]", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 100_000])
def test_a_provenance_that_is_none_is_damage(odd: str, posbench: Callable[..., Ran]) -> None:
    with Store(Path("s.db")) as store:
        save(store, plan(targets=[target("H")]))
        [record] = store.records()
    with sqlite3.connect("s.db") as connection:
        connection.execute("UPDATE runs SET provenance = ?", (odd,))
    connection.close()
    for command in ("publish out --store s.db", f"show {record.cell_id} --store s.db", "report --store s.db"):
        ran = posbench(*command.split())
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran
        assert ran.err.startswith("posbench: store 's.db' is damaged (malformed: ")
    assert posbench("merge", "s.db", "-o", "all.db").code == 2
    assert [path.name for path in Path().iterdir()] == ["s.db"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON cells BEGIN DELETE FROM scores; END",
        "CREATE VIEW t AS SELECT * FROM cells",
    ],
)
def test_a_store_brings_no_code(statement: str, path: Path) -> None:
    with Store(path) as store:
        save(store, two())
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(UsageError, match="holds 't', which is no table: posbench made no such store"):
        Store(path)


def test_who_writes_waits_for_who_is_writing(path: Path) -> None:
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        later = threading.Timer(1.0, lambda: other.execute("COMMIT"))
        later.start()
        save(store, two())
        later.join()
        other.close()
        assert len(store.records()) == 2
        assert store._connection.execute("PRAGMA busy_timeout").fetchone() == (60_000,)


def test_who_makes_a_store_may_find_it_made_by_another_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = Store._version

    def and_then_another_makes_it(store: Store) -> int:
        monkeypatch.setattr(Store, "_version", version)
        before = version(store)
        with Store(path) as other:
            save(other, two())
        return before

    monkeypatch.setattr(Store, "_version", and_then_another_makes_it)
    with Store(path) as store:
        assert len(store.records()) == 2


@pytest.mark.parametrize("where", ["missing/results.db", "file/results.db", "folder"])
def test_a_place_that_cannot_be_written_is_one_line(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"store '.*' cannot be used \(unable to open database file\)") as caught:
        Store(tmp_path / where)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_place_for_its_store_stops_at_once(tiny: str, posbench: Callable[..., Ran]) -> None:
    answer = posbench("run", "--backbones", tiny, "--images", "leaves", "--store", "nowhere/results.db")
    assert answer.code == 2
    assert "cannot be used" in answer.err.splitlines()[-1]


@pytest.mark.parametrize("old", [False, True])
def test_reading_leaves_another_journal_as_it_is(old: bool, path: Path, posbench: Callable[..., Ran]) -> None:
    if old:
        path.write_bytes(OLD.read_bytes())
    else:
        with Store(path) as store:
            save(store, two())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    before = path.read_bytes()
    assert posbench("leaderboard", "--store", str(path)).code == 0
    assert path.read_bytes() == before
    assert posbench("merge", str(path), "-o", "all.db").code == 0
    assert path.read_bytes() == before


def test_reading_makes_no_store(path: Path, posbench: Callable[..., Ran]) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        Store(path, must_exist=True)
    assert not path.exists()
    assert posbench("leaderboard", "--store", str(path)).code == 2
    assert not path.exists()


def test_a_store_that_locks_out_is_told(path: Path) -> None:
    with Store(path) as store:
        store._connection.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match="database is locked"):
            save(store, two())
        other.execute("ROLLBACK")
        other.close()
        save(store, two())


def test_jobs_of_one_network_stay_apart(path: Path) -> None:
    made = plan(networks=[(NET, [TRAINED, UNTRAINED])], paddings=[padding("zero"), padding("edge")])
    with Store(path) as store:
        save(store, made)
        records = store.records()
        titles = [store.provenance(record.run_id)["job"] for record in records]
    assert titles == [cell.job.title for cell in made.cells]
    assert len(set(titles)) == 4
    assert replace(records[0], created="") != replace(records[1], created="")


def test_a_store_without_examples_gets_some_and_keeps_what_it_had(path: Path) -> None:
    path.write_bytes((OLD.parent / "schema-2.db").read_bytes())
    with Store(path) as store:
        records, measurements = store.records(), store.measurements()
        assert [record.outcome.status for record in records] == ["ok", "failed"]
        assert [score.by_photograph for score in records[0].outcome.scores] == [{"a@1": 0.4, "b@2": 0.6}]
        assert records[0].outcome.reach == 12
        [measurement] = [record.measurement for record in measurements]
        assert (measurement.picture, measurement.by_photograph) == (b"1234", {"a@1": 1.5})
        assert store.examples() == {}
        [(job, cells)] = plan(targets=[target("H"), target("G")]).jobs()
        store.save(job, cells[:1], [scored(cells[0], examples=[EXAMPLE])], {})
        assert store.examples() == {cells[0].id: [EXAMPLE]}
        store.check()


def test_examples_come_back_as_they_went_and_equal_thumbnails_are_kept_once(path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    other = replace(EXAMPLE, photograph="b@2", drawn=np.zeros((2, 2), "<f2").tobytes())
    with Store(path) as store:
        store.save(job, cells, [scored(cell, examples=[EXAMPLE, other]) for cell in cells], {})
        assert store.examples() == {cell.id: [EXAMPLE, other] for cell in cells}
        store.save(job, cells[:1], [scored(cells[0], examples=[other])], {})
        assert store.examples() == {cells[0].id: [other], cells[1].id: [EXAMPLE, other]}
        assert store._connection.execute("SELECT count(*) FROM thumbnails").fetchone() == (1,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE examples SET drawn = x'000100'", "a small map of 3 bytes"),
        ("UPDATE examples SET drawn = x'007C'", "a map that is not finite"),
        ("UPDATE examples SET photograph = char(27) || '[2J'", "control characters"),
        ("UPDATE thumbnails SET rgb = x'010203'", "is not what its name is the hash of"),
    ],
)
def test_examples_that_cannot_be_are_damage(change: str, message: str, path: Path) -> None:
    made = two()
    [(job, cells)] = made.jobs()
    with Store(path) as store:
        store.save(job, cells[:1], [scored(cells[0], examples=[EXAMPLE])], {})
        store._connection.execute(change)
        with pytest.raises(UsageError, match=f"is damaged .*{message}"):
            store.examples()


def test_a_cell_whose_examples_differ_in_size_is_damage(posbench: Callable[..., Ran]) -> None:
    [(job, cells)] = plan(targets=[target("H")]).jobs()
    with Store(Path("s.db")) as store:
        store.save(job, cells, [scored(cells[0], examples=[EXAMPLE, replace(EXAMPLE, drawn=bytes(18))])], {})
    for command in ("report", "publish out"):
        ran = posbench(*command.split(), "--store", "s.db")
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert "is damaged (malformed: small maps of one cell that differ in size)" in ran.err


def test_a_store_is_migrated_wholly_or_not_at_all(path: Path) -> None:
    path.write_bytes(OLD.read_bytes())
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE thumbnails (odd TEXT)")  # so that the second step fails
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="table thumbnails already exists"):
        Store(path)
    assert path.read_bytes() == before


def test_readings_come_back_as_they_went(path: Path) -> None:
    made = two()
    [(job, _)] = made.jobs()
    measurement = Measurement("modes", "1", "all", "ok", "", 1.5, 1.0, 2.0, {"a@1": 1.5}, b"1234", 1)
    taps = [Measurement("ppp", "1", str(tap), value=float(tap)) for tap in (10, 9, 1)]
    with Store(path) as store:
        save(store, made)
        store.save(job, [], [], {}, [measurement, *taps])
        stored = store.measurements()
        assert [record.measurement for record in stored] == [measurement, *taps[::-1]]
        assert {record.job_id for record in stored} == {job.id}
        assert stored[0].identity == job.identity()
        assert store.measured() == {(job.id, "modes", "1"), (job.id, "ppp", "1")}
        failed = Measurement("modes", "1", status="failed", reason="boom")
        store.save(job, [], [], {}, [failed])
        assert store.measurements()[0].measurement == measurement  # a result is not replaced by a failure
        store.save(job, [], [], {}, [replace(failed, metric="new")])
        assert (job.id, "new", "1") not in store.measured()
        store.save(job, [], [], {}, [Measurement("new", "1", "1", value=0.5)])
        assert [record.measurement.status for record in store.measurements(metrics=[metric("new")])] == ["ok"]


def test_measurements_are_selected_by_job_and_by_metric_in_its_version(path: Path) -> None:
    jobs = [job for job, _ in plan(paddings=[padding("zero"), padding("edge")]).jobs()]
    with Store(path) as store:
        for job in jobs:
            stored = [Measurement(name, "1", str(tap), value=1.0) for name in ("modes", "ppp") for tap in (1, 2)]
            store.save(job, [], [], {}, [*stored, Measurement("modes", "2", value=2.0)])

        def selected(*arguments: Any) -> list[tuple[str, str, str, str]]:
            records = store.measurements(*arguments)
            return [(r.job_id, r.measurement.metric, r.measurement.version, r.measurement.tap) for r in records]

        of_all = selected()
        assert len(of_all) == 10
        assert selected([jobs[1].id]) == of_all[5:]
        assert selected([jobs[0].id], [metric("ppp"), metric("modes", "2")]) == [
            (jobs[0].id, "modes", "2", "all"),
            (jobs[0].id, "ppp", "1", "1"),
            (jobs[0].id, "ppp", "1", "2"),
        ]
        assert selected(None, [metric("modes", "3")]) == selected([]) == []


def test_the_number_of_statements_does_not_grow_with_the_cells_that_are_asked_for(path: Path) -> None:
    counts = []
    with Store(path) as store:
        for cells in (2, 40):
            made = plan(targets=[target(f"t{i}") for i in range(cells)], paddings=[padding(f"p{cells}")])
            save(store, made)
            [task] = made.tasks()
            statements: list[str] = []
            store._connection.set_trace_callback(statements.append)
            assert store.remaining(task, since=0) is None
            assert len(store.records(cell.id for cell in made.cells)) == cells
            store._connection.set_trace_callback(None)
            counts.append(len(statements))
    assert counts == [4, 4]


def test_of_what_is_left_only_what_others_have_not_finished_remains(path: Path) -> None:
    made = plan(targets=[target(name) for name in "HVGK"])
    [(job, cells)] = made.jobs()
    task = Task(job, tuple(cells), (metric("modes"), metric("ppp")))
    outcomes = [
        scored(cells[0]),
        Outcome(cells[1].identity(), "failed", "boom"),
        Outcome(cells[2].identity(), "skipped", "no room"),
    ]
    with Store(path) as store:
        assert store.remaining(task, 0, [SPC]) == task
        store.save(job, cells[:3], outcomes, {}, [Measurement("modes", "1", value=1.0)])
        run = store.last_run()
        left = store.remaining(task, run, [SPC])
        assert left is not None
        assert left.cells == (cells[1], cells[3])
        assert [metric.name for metric in left.measures] == ["ppp"]
        # A metric that is new needs what was scored again, but not what was skipped.
        both = store.remaining(task, run, [SPC, MAE])
        assert both is not None
        assert both.cells == (cells[0], cells[1], cells[3])
        # What failed after the run `since` is not tried again.
        later = store.remaining(task, run - 1, [SPC], forced=True)
        assert later is not None
        assert later.cells == (cells[3],)
        # With `forced`, nothing that was stored before counts.
        assert store.remaining(task, run, [SPC], forced=True) == task


def test_the_half_width_of_an_interval() -> None:
    assert half_width(Score("spc", "1", 0.5, 0.25, 0.75)) == 0.25
    assert half_width(Score("spc", "1", 0.5, None, None)) is None
