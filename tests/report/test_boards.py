"""Boards with the best line first, their marks and their notes."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.network.weights import Weights
from posbench.report.boards import Board, Entry, boards, entry_text
from tests.factories import NET, TRAINED, UNTRAINED, backbone, control, padding, readout, target
from tests.rows import changed, plan_rows

PADDINGS = [padding(name) for name in ("zero", "circular", "reflect")]


def labels(board: Board, section: str = "H") -> list[str]:
    return [label for label, _ in board.sections[section]]


@pytest.mark.parametrize(
    ("higher_is_better", "order"), [(True, ["reflect", "zero", "circular"]), (False, ["circular", "zero", "reflect"])]
)
def test_the_best_line_is_first(higher_is_better: bool, order: list[str]) -> None:
    scores: Any = {("net", "zero"): 0.5, ("net", "circular"): -0.25, ("net", "reflect"): 0.75}
    [board] = boards(plan_rows(scores, paddings=PADDINGS), "spc", higher_is_better=higher_is_better)
    assert labels(board) == order
    assert [[entry.best for entry in entries] for _, entries in board.sections["H"]] == [[True], [False], [False]]
    assert board.caption.startswith("higher is better" if higher_is_better else "lower is better")


def test_each_target_is_sorted_and_each_column_marked_by_itself() -> None:
    scores: Any = {
        ("a", "zero", "H"): 0.9,
        ("a", "circular", "H"): 0.2,
        ("a", "reflect", "H"): 0.6,
        ("b", "zero", "H"): 0.1,
        ("b", "circular", "H"): 0.3,
        ("b", "reflect", "H"): 0.6,
        ("a", "zero", "V"): 0.1,
        ("a", "circular", "V"): 0.8,
        ("a", "reflect", "V"): 0.8,
        ("b", "zero", "V"): 0.1,
    }
    networks = [(backbone("a"), [TRAINED]), (backbone("b"), [TRAINED])]
    table_rows = plan_rows(scores, networks=networks, paddings=PADDINGS, targets=[target("H"), target("V")])
    [board] = boards(table_rows, "spc", higher_is_better=True)
    assert board.headings == ["a\nimagenet:net@1", "b\nimagenet:net@1"]
    # H by its mean over networks: reflect .6, zero .5, circular .25. V: circular and reflect .8, zero .1.
    assert labels(board, "H") == ["reflect", "zero", "circular"]
    assert labels(board, "V") == ["circular", "reflect", "zero"]
    best = {
        (section, label, i)
        for section, lines in board.sections.items()
        for label, entries in lines
        for i, entry in enumerate(entries)
        if entry.best
    }
    assert best == {("H", "zero", 0), ("H", "reflect", 1), ("V", "circular", 0), ("V", "reflect", 0)}
    assert board.sections["V"][0][1][1] == Entry()


def test_either_side_may_stand_in_the_lines() -> None:
    scores: Any = {("a", "zero"): 0.25, ("b", "zero"): 0.75, ("a", "circular"): 0.5, ("b", "circular"): 0.5}
    networks = [(backbone("a"), [TRAINED]), (backbone("b"), [TRAINED])]
    table_rows = plan_rows(scores, networks=networks, paddings=PADDINGS[:2])
    [board] = boards(table_rows, "spc", higher_is_better=True, by="backbone")
    assert board.headings == ["zero", "circular"]
    assert labels(board) == ["b\nimagenet:net@1", "a\nimagenet:net@1"]
    assert [[entry.value for entry in entries] for _, entries in board.sections["H"]] == [[0.75, 0.5], [0.25, 0.5]]


def test_the_control_stands_last_and_beside_every_padding() -> None:
    scores: Any = {("net", "zero"): 0.5, ("net", "circular"): 0.25, ("none", "none"): 0.125}
    table_rows = plan_rows(scores, networks=[control(), (NET, [TRAINED])], paddings=PADDINGS[:2])
    [board] = boards(table_rows, "spc", higher_is_better=True)
    assert board.headings == ["net\nimagenet:net@1", "none\nnone"]
    assert [[entry.value for entry in entries] for _, entries in board.sections["H"]] == [[0.5, 0.125], [0.25, 0.125]]
    # What does not change from line to line is best nowhere.
    assert not any(entries[1].best for _, entries in board.sections["H"])


def test_the_control_alone_makes_a_board() -> None:
    [board] = boards(plan_rows({("none", "none"): 0.125}, networks=[control()]), "spc", higher_is_better=True)
    assert labels(board) == ["none"]
    assert board.sections["H"][0][1][0].value == 0.125


def test_the_control_stands_beside_networks_whose_taps_were_chosen() -> None:
    changes: dict[str, Any] = {"networks": [(NET, [TRAINED]), control()], "taps": ["1", "2"]}
    table_rows = plan_rows({("net", "zero"): 0.5, ("none", "none"): 0.1}, **changes)
    tables = boards(table_rows, "spc", higher_is_better=True)
    assert ["taps 1" in table.caption for table in tables] == [True, False]
    assert [len(table.headings) for table in tables] == [2, 2]


def test_the_control_stands_on_every_board_whatever_its_taps() -> None:
    networks: dict[str, Any] = {"networks": [(NET, [TRAINED]), control()]}
    scores: dict[tuple[str, ...], float | str | None] = {("net", "zero"): 0.5, ("none", "none"): 0.1}
    first_tap = [row for row in plan_rows(scores, **networks, taps=["1"]) if row.backbone == "net"]
    every = plan_rows(scores, **networks, taps=["all"])
    for table in boards(first_tap + every, "spc", higher_is_better=True):
        assert [heading.partition("\n")[0] for heading in table.headings] == ["net", "none"]


def test_of_several_versions_the_newest_result_is_shown_and_the_others_are_told_of() -> None:
    older, newer = (plan_rows({("net", "zero"): score})[0] for score in (0.9, 0.2))
    older = changed(older, created="2025-01-01T00:00:00+00:00")
    newer = changed(newer, created="2025-01-02T00:00:00+00:00")
    for both in ([older, newer], [newer, older]):
        (table,) = boards(both, "spc", higher_is_better=True)
        assert [entry.value for _, entries in table.sections["H"] for entry in entries] == [0.2]
        assert "1 older results, of other versions of these components, are in the CSV alone" in table.notes


def test_a_board_without_scores_claims_no_interval() -> None:
    table_rows = plan_rows({("net", "zero"): "skipped: no room"})
    (table,) = boards(table_rows, "spc", higher_is_better=True)
    assert "interval" not in table.caption


def test_trained_and_untrained_networks_are_never_mistaken() -> None:
    weights = [TRAINED, UNTRAINED, Weights("random:1", seed=1), Weights("file:a.pt@12345678", "1")]
    table_rows = plan_rows({("net", "zero"): 0.5}, networks=[(NET, weights)])
    [board] = boards(table_rows, "spc", higher_is_better=True)
    assert board.headings == [
        "net\nimagenet:net@1",
        "net\nuntrained, random:0",
        "net\nuntrained, random:1",
        "net\nfile:a.pt@12345678",
        "net\nuntrained, 2 seeds",
    ]


def test_readouts_with_seeds_have_a_column_each() -> None:
    table_rows = plan_rows({("net", "zero"): 0.5}, readouts=[readout("sgd", stochastic=True)], seeds=[0, 4])
    [board] = boards(table_rows, "spc", higher_is_better=True)
    assert board.headings == [
        "net\nimagenet:net@1\nreadout seed 0",
        "net\nimagenet:net@1\nreadout seed 4",
        "net\nimagenet:net@1, 2 seeds",
    ]


def test_several_seeds_are_summarised_beside_their_columns() -> None:
    table_rows = plan_rows({("net", "zero"): 0.5}, networks=[(NET, [UNTRAINED, Weights("random:1", seed=1)])])
    table_rows[1] = changed(table_rows[1], spc=0.25)
    [board] = boards(table_rows, "spc", higher_is_better=True)
    _, entries = board.sections["H"][0]
    assert [entry_text(entry) for entry in entries] == ["0.50 ±0.10", "0.25 ±0.10", "0.38 (0.25 to 0.50)"]


def test_what_cannot_be_compared_stands_on_boards_of_its_own() -> None:
    table_rows = plan_rows({("net", "zero"): 0.5}) + plan_rows({("net", "zero"): 0.25}, image_size=72)
    table_rows += plan_rows({("net", "zero"): 0.125}, taps=["1"])
    split = boards(table_rows, "spc", higher_is_better=True)
    assert [board.sections["H"][0][1][0].value for board in split] == [0.5, 0.25, 0.125]
    assert boards([], "spc", higher_is_better=True) == []


def test_skipped_and_failed_cells_are_told_in_notes() -> None:
    scores: Any = {
        ("net", "zero"): 0.5,
        ("net", "circular"): "skipped: the map is narrower than the padding",
        ("net", "reflect"): "failed: ValueError: broke",
        ("net", "edge"): "skipped: the map is narrower than the padding",
    }
    table_rows = plan_rows(scores, paddings=[*PADDINGS, padding("edge")], targets=[target("H"), target("V")])
    [board] = boards(table_rows, "spc", higher_is_better=True)
    assert board.notes == [
        "[1] net × circular skipped, net × edge skipped: the map is narrower than the padding",
        "[2] net × reflect failed: ValueError: broke",
    ]
    shown = {label: entry_text(entries[0]) for label, entries in board.sections["H"]}
    assert shown == {
        "zero": "0.50 ±0.10",
        "circular": "skipped [1]",
        "reflect": "failed [2]",
        "edge": "skipped [1]",
    }
    assert labels(board)[0] == "zero"


def test_a_metric_that_was_not_computed_leaves_a_dash() -> None:
    [board] = boards(plan_rows({("net", "zero"): 0.5}), "mae", higher_is_better=False)
    assert entry_text(board.sections["H"][0][1][0]) == "–"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(0.625, 0.125), "0.62 ±0.12"),
        (Entry(-0.004, 0.001), "0.00 ±0.00"),
        (Entry(1.0), "1.00"),
        (Entry(-0.996), "-1.00"),
        (Entry(status="skipped", note=3), "skipped [3]"),
        (Entry(), "–"),
    ],
)
def test_an_entry_as_text(entry: Entry, text: str) -> None:
    assert entry_text(entry) == text
