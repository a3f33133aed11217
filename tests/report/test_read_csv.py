"""Tests of reading tables: rows come back as they were, or an error names the place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posbench.bench.row import Row
from posbench.core.errors import UsageError
from posbench.report import read_csv
from posbench.report.read_csv import from_csv
from posbench.report.rows import FORMULA, columns, rows, to_csv
from posbench.store.store import Store
from tests.conftest import Ran
from tests.factories import plan, scored, target
from tests.rows import CONTROLS, changed

SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def made(tmp_path: Path) -> list[Row]:
    """Two rows, as a store has them."""
    with Store(tmp_path / "made.db") as store:
        for job, cells in plan(targets=[target("H"), target("V")]).jobs():
            store.save(job, cells, [scored(cell) for cell in cells], {})
        return rows(store.records(), CONTROLS)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


text_that_prints = st.one_of(
    st.text(
        st.one_of(st.sampled_from("=+-@\t\n'\"|,;<>[]"), st.characters(categories=["L", "N", "P", "S"])), max_size=20
    ),
    st.text("'=+-@", max_size=4),
)


@SAME_FILE
@given(
    reason=text_that_prints,
    name=text_that_prints,
    value=st.floats(allow_nan=False, allow_infinity=False),
    seconds=st.floats(0, 1e9),
    count=st.one_of(st.none(), st.integers(0, 2**53 - 1)),
)
def test_what_is_written_is_read_back(
    reason: str, name: str, value: float, seconds: float, count: int | None, made: list[Row], tmp_path: Path
) -> None:
    scores = {"spc": value, "spc_lo": None, "spc_hi": None}
    before = [changed(made[0], reason=reason, backbone=name, seconds=seconds, n_test_photos=count, **scores), made[1]]
    after = from_csv(written(tmp_path / "a.csv", to_csv(before)), CONTROLS)
    for old, new in zip(before, after, strict=True):
        names = columns(before)
        expected = {name: old.get(name) for name in names} | {"control": None, "control_of": None}
        assert {name: new.get(name) for name in names} == expected
    assert to_csv(after) == to_csv(before)


def altered(made: list[Row], column: str, text: str) -> str:
    """The table, with one field of its first row set to a text."""
    header, first, *others = csv.reader(io.StringIO(to_csv(made)))
    first[header.index(column)] = text
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, first, *others])
    return file.getvalue()


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("spc", "inf", "row 2: spc is 'inf', not a number"),
        ("spc", "1_0", "row 2: spc is '1_0', not a number"),
        ("spc", "٣", "row 2: spc is '٣', not a number"),
        ("spc", "1e999", "row 2: spc: inf is no finite number"),
        ("spc", "0.9", "row 2: spc: 0.9, which its interval, 0.4 to 0.6, does not hold"),
        ("spc", "", "row 2: spc: None, which its interval"),
        ("n_test", "6.5", "row 2: n_test is '6.5', not a whole number"),
        ("n_test", "9" * 5000, "row 2: n_test is '9{40}', not a whole number"),
        ("status", "fine", "row 2: status: 'fine', not one of ok, skipped, failed"),
        ("cell_id", "../x", "row 2: cell_id: '../x', not 64 hexadecimal digits"),
        ("backbone", "\x1b[31mred", r"row 2: backbone: control characters in '\\x1b\[31mred'"),
        ("n_test_photos", "-5", "row 2: n_test_photos: -5 is negative"),
        ("seconds", "-0.5", "row 2: seconds: -0.5 is negative"),
        ("degenerate", "1.5", "row 2: degenerate: 1.5 is no share"),
        ("created", "yesterday", "row 2: created: Invalid isoformat string: 'yesterday'"),
        ("posbench_version", "\x9b2J", r"row 2: posbench_version: control characters in '\\x9b2J'"),
        ("taps", "1+x", r"row 2: taps: '1\+x', which are no taps"),
        ("reason", "a\0b", r"row 2: reason: control characters in 'a\\x00b'"),
    ],
)
def test_a_field_that_cannot_be_is_named(
    column: str, text: str, message: str, made: list[Row], tmp_path: Path, posbench: Callable[..., Ran]
) -> None:
    path = written(tmp_path / "a.csv", altered(made, column, text))
    with pytest.raises(UsageError, match=message):
        from_csv(path, CONTROLS)
    for command in (("compare", str(path), str(path)), ("merge", str(path), "-o", "all.csv")):
        ran = posbench(*command)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1
    assert not Path("all.csv").exists()


def test_formulas_are_neutralised_and_come_back_exactly(posbench: Callable[..., Ran]) -> None:
    formulas = ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "\n=1", "'=1", "''=1", "'quoted'", "1=1"]
    [(job, cells)] = plan(targets=[target(f"t{i}") for i in range(len(formulas))]).jobs()
    with Store(Path("a.db")) as store:
        values = [0.1 + i / 3 for i in range(len(formulas))]
        outcomes = [scored(cell, v, reason=r) for cell, v, r in zip(cells, values, formulas, strict=True)]
        store.save(job, cells, outcomes, {})
        before = rows(store.records(), CONTROLS)
    assert posbench("leaderboard", "--store", "a.db", "--csv", "a.csv").code == 0
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        fields = [field for line in csv.reader(file) for field in line]
    numbers = [field for field in fields if field.startswith("-") and field != "-"]
    assert not [field for field in fields if field.startswith(FORMULA) and field not in numbers]
    assert not [number for number in numbers if float(number) >= 0]
    for old, new in zip(before, from_csv(Path("a.csv"), CONTROLS), strict=True):
        assert {name: old[name] for name in new if name in old} == {name: new[name] for name in new if name in old}
    compared = json.loads(posbench("compare", "a.csv", "a.db", "--json").out)
    assert [line["difference"]["value"] for line in compared["lines"]] == [0.0] * len(formulas)


def test_a_column_of_someones_own_is_named(made: list[Row], tmp_path: Path) -> None:
    header, *lines = to_csv(made).splitlines()
    text = "\n".join([f"{header},note", *(f"{line},good" for line in lines), ""])
    with pytest.raises(UsageError, match="has a column 'note' that is no metric with its interval: remove it"):
        from_csv(written(tmp_path / "a.csv", text), CONTROLS)


def test_a_file_too_large_for_a_table_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_csv, "LARGEST", 2**20)
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(UsageError, match=r"is no leaderboard \(it has more than 1 MB\)"):
        from_csv(tmp_path / "a.csv", CONTROLS)


@settings(SAME_FILE, max_examples=300)
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode())))
def test_of_any_bytes_only_usage_errors_escape(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        from_csv(path, CONTROLS)
    assert len(str(error.value).splitlines()) == 1


@settings(SAME_FILE, max_examples=300)
@given(data=st.data())
def test_a_table_that_was_tampered_with_is_a_table_or_a_usage_error(
    data: st.DataObject, made: list[Row], tmp_path: Path
) -> None:
    """Fuzzed around what is valid: bytes changed, cut out and put in; and whole fields."""
    if data.draw(st.booleans()):
        content = altered(made, data.draw(st.sampled_from(columns(made))), data.draw(st.text(max_size=30))).encode(
            "utf-8", "surrogatepass"
        )
    else:
        content = to_csv(made).encode()
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(max_size=4)) + content[at + data.draw(st.integers(0, 30)) :]
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    problem = ""
    try:
        read = from_csv(path, CONTROLS)
    except UsageError as error:
        problem = str(error)
    if problem:
        assert len(problem.splitlines()) == 1
    else:
        assert from_csv(written(tmp_path / "again.csv", to_csv(read)), CONTROLS) == read
