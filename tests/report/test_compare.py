"""Two sides compared: the cells that correspond, and the statistics of their differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posbench.bench.controls import select_controls, with_controls
from posbench.bench.plan import Cell
from posbench.bench.records import Outcome, Score
from posbench.core.errors import UsageError
from posbench.core.statistics import interval
from posbench.plugin.components import Padding
from posbench.report.compare import Side, compare, side, to_json
from posbench.report.read_csv import from_csv
from posbench.report.rows import row, rows, to_csv
from posbench.store.store import Store
from tests.bench.test_controls import INPUTS, REGISTRY
from tests.factories import padding, plan, target
from tests.rows import CONTROLS, changed

PHOTOGRAPHS = [f"photo-{i}" for i in range(13)]


def outcome(cell: Cell, shift: float) -> Outcome:
    """SPC that rises from photograph to photograph, and by a shift."""
    by = {name: i / 100 + shift for i, name in enumerate(PHOTOGRAPHS)}
    score = Score("spc", "1", *interval(list(by.values())), by)
    return Outcome(cell.identity(), "ok", n_test_photos=len(by), scores=[score])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two paddings × two targets; `zero` is better by .1 for H and by .2 for V."""
    two_paddings = plan(targets=[target("H"), target("V")], paddings=[padding("zero"), padding("edge")])
    path = tmp_path / "store.db"
    with Store(path) as opened:
        for job, cells in two_paddings.jobs():
            assert isinstance(job.padding, Padding)
            lead = {"H": 0.1, "V": 0.2} if job.padding.name == "zero" else {"H": 0.0, "V": 0.0}
            opened.save(job, cells, [outcome(cell, lead[cell.target.name]) for cell in cells], {})
    return path


def test_selections_of_a_store_are_paired_by_photograph(store: Path) -> None:
    compared = compare(side("padding=zero", store, CONTROLS), side("padding=edge", store, CONTROLS), "spc")
    assert [dict(line.labels) for line in compared.lines] == [{"target": "H"}, {"target": "V"}]
    for line, lead in zip(compared.lines, (0.1, 0.2), strict=True):
        difference = line.difference
        assert (difference.value, difference.lo, difference.hi, difference.n) == pytest.approx((lead, lead, lead, 13))
        assert difference.p == 2 / 2**13
        assert line.adjusted == pytest.approx(2 * 2 / 2**13)
    assert compared.unmatched == 0
    assert json.loads(to_json(compared))["lines"][0]["difference"]["n"] == 13


def test_several_columns_select_together(store: Path) -> None:
    compared = compare(
        side("padding=zero,target=H", store, CONTROLS), side("padding=edge , target=V", store, CONTROLS), "spc"
    )
    assert [line.difference.value for line in compared.lines] == [pytest.approx(0.1)]


def test_two_stores_or_tables_correspond_cell_by_cell(store: Path, tmp_path: Path) -> None:
    itself = compare(side(str(store), store, CONTROLS), side(str(store), store, CONTROLS), "spc")
    assert [line.difference.value for line in itself.lines] == [0] * 4
    assert {line.adjusted for line in itself.lines} == {1.0}
    with Store(store) as opened:
        (tmp_path / "a.csv").write_text(to_csv(rows(opened.records(), CONTROLS)), encoding="utf-8")
    table = compare(side(str(tmp_path / "a.csv"), store, CONTROLS), side(str(store), store, CONTROLS), "spc")
    assert len(table.lines) == 4
    for line in table.lines:
        # A table does not say which photographs its means are over.
        assert (line.difference.value, line.difference.p, line.difference.n) == (0, None, None)
        assert line.difference.lo is not None
        assert line.difference.lo < 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("missing.db", "padding=zero", "'missing.db' is no file: give a store, a CSV file, or columns such as"),
        ("pading=zero", "padding=zero", "unknown column 'pading': did you mean padding"),
        ("padding=zero", "padding=odd", "no cell in .* has padding=odd"),
        ("target=H", "target=V", "'target=H' stands for both (zero|edge) and (zero|edge): add padding=… to it"),
        ("padding=zero,target=H", "target=V,padding=zero", None),
    ],
)
def test_what_cannot_be_compared_says_why(a: str, b: str, message: str | None, store: Path) -> None:
    def go() -> Any:
        return compare(side(a, store, CONTROLS), side(b, store, CONTROLS), "spc")

    if message is None:
        assert len(go().lines) == 1
        return
    if a == "target=H":
        # The padding is not named, so it must agree, and it does: two lines.
        assert [dict(line.labels) for line in go().lines] == [{"padding": "zero"}, {"padding": "edge"}]
        return
    with pytest.raises(UsageError, match=message):
        go()


def test_a_metric_that_is_not_there_is_named(store: Path) -> None:
    with pytest.raises(UsageError, match="have no cells with pearson in common"):
        compare(side("padding=zero", store, CONTROLS), side("padding=edge", store, CONTROLS), "pearson")


def test_controls_stay_out_unless_they_are_named(store: Path) -> None:
    with Store(store) as opened:
        every = rows(opened.records(), CONTROLS)
    control = changed(every[0], control="permuted", control_of=every[0].cell_id, spc=0.0)
    first, second = Side("a", [*every, control]), Side("b", every)
    assert len(compare(first, second, "spc").lines) == 4


class TestCsv:
    def test_comes_back_as_it_was(self, store: Path, tmp_path: Path) -> None:
        with Store(store) as opened:
            before = rows(opened.records(), CONTROLS)
        before[0] = changed(before[0], reason="=1+1, “quoted”\nand broken")
        before[1] = changed(before[1], reach=1 / 3)
        path = tmp_path / "a.csv"
        path.write_text(to_csv(before), encoding="utf-8", newline="")
        for old, new in zip(before, from_csv(path, CONTROLS), strict=True):
            assert {name: old.get(name) for name in new} == dict(new)
            assert to_csv([new]).splitlines()[1:] == to_csv([old]).splitlines()[1:]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: "", "it lacks the column 'backbone'"),
            (lambda text: text.replace("target", "pattern"), "it lacks the column 'target'"),
            (lambda text: text.replace("spc_lo", "spc_hi", 1), "two columns of one name"),
            (lambda text: text + "a,b\n", "row 6: 2 fields, where the header has"),
            (lambda text: text.replace(",0.0625,", ",six,", 1), "row 2: spc is 'six', not a number"),
            (lambda text: text.replace(",0.0625,", ",nan,", 1), "row 2: spc is 'nan', not a number"),
            (lambda text: text.replace(",0.0625,", ',"0.0625,'), "is no leaderboard"),
        ],
    )
    def test_a_file_that_is_no_leaderboard_says_where(
        self, change: Any, message: str, store: Path, tmp_path: Path
    ) -> None:
        with Store(store) as opened:
            records = opened.records()
        text = to_csv([changed(row(record), spc=0.0625, spc_lo=None, spc_hi=None) for record in records])
        (tmp_path / "a.csv").write_text(change(text), encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            from_csv(tmp_path / "a.csv", CONTROLS)


def test_a_control_with_targets_of_its_own_stands_beside_what_it_checks(tmp_path: Path) -> None:
    checked = with_controls(plan(targets=[target("H"), target("V")]), select_controls(["permuted"], REGISTRY), INPUTS)
    with Store(tmp_path / "c.db") as opened:
        for job, cells in checked.jobs():
            opened.save(job, cells, [outcome(cell, 0.3 if cell.control else 0.0) for cell in cells], {})
    sides = [side(text, tmp_path / "c.db", CONTROLS) for text in ("control=", "control=permuted")]
    compared = compare(*sides, "spc")
    assert [line.labels["target"] for line in compared.lines] == ["H", "V"]
    assert [line.difference.value for line in compared.lines] == pytest.approx([-0.3, -0.3])
    assert compared.unmatched == 0
