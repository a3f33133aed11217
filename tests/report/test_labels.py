"""Groups of rows: single taps beside all of them, and targets that paddings have in common."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.bench.row import Row
from posbench.report.labels import groups, in_common, without_single_taps
from tests.report.test_ranking import row


def cell(name: str, taps: str, **more: Any) -> Row:
    return row("zero", "H", (0.5,) * 4, taps=taps, cell_id=name, **more)


def ids(rows: list[Row]) -> list[str]:
    return [row.cell_id for row in rows]


def test_single_taps_go_with_their_controls_where_all_are_read_together() -> None:
    rows = [
        *(cell("a", "all"), cell("b", "1"), cell("c", "1+2")),
        *(cell("check of a", "all", control="null", control_of="a"), cell("of b", "1", control="null", control_of="b")),
        *(cell("d", "1", readout="sgd"), cell("e", "2", backbone="other")),
    ]
    assert ids(without_single_taps(rows)) == ["a", "c", "check of a", "d", "e"]


def test_groups_have_all_taps_first_and_the_newest_last() -> None:
    rows = [cell("a", "1"), cell("b", "all", created="2027"), cell("c", "all"), cell("d", "all", control="null")]
    assert [ids(group) for group in groups(rows, lambda row: row.taps)] == [["c", "b"], ["a"]]


@pytest.mark.parametrize(
    ("having", "items", "names"),
    [
        ({"a": "HV", "b": "HV", "c": "G"}, "HV", "ab"),
        ({"a": "HV", "b": "HV", "c": "H"}, "HV", "ab"),
        ({"a": "HVG", "b": "HV", "c": "HG"}, "HV", "ab"),
        ({"a": "HVGSX", "b": "HVGS", "c": "HVGX"}, "HVG", "abc"),
        ({"a": "HVG", "b": "H", "c": "H", "d": "H", "e": "H"}, "H", "abcde"),
        ({"a": "H", "b": "V"}, "", ""),
        ({"a": "H"}, "", ""),
        ({}, "", ""),
    ],
)
def test_what_makes_the_most_pairs_is_compared(having: dict[str, str], items: str, names: str) -> None:
    assert in_common(having) == (list(items), list(names))
