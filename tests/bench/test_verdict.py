"""The rules of docs/controls.md, each on rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.bench.row import Row
from posbench.bench.verdict import DOES_NOT, ENCODES, NO_POSITION, SEAM, UNDECIDED, decide, verdicts
from posbench.core.statistics import interval
from posbench.report.boards import entry_text
from posbench.report.control_boards import verdict_boards
from tests.rows import changed, make_row

LEAVES = {"images": "leaves", "test_images": "leaves"}


def row(values: list[float] | float, **changes: Any) -> Row:
    """Return a row on leaves whose SPC is the mean of values by photograph; of a number, nine of them about it."""
    if isinstance(values, float):
        values = [values + step / 100 for step in range(-4, 5)]
    mean, lo, hi = interval(values)
    by_photograph = {"spc": {str(i): value for i, value in enumerate(values)}}
    scores = {"spc": mean, "spc_lo": lo, "spc_hi": hi, "n_test_photos": len(values)}
    cell_id = f"{changes.get('target', 'H')}-{changes.get('control')}"
    return make_row(by_photograph, **LEAVES | scores | {"cell_id": cell_id} | changes)


def others(**changes: Any) -> list[Row]:
    """Return rows of the other four targets, with scores about 0."""
    return [row(0.0, target=target, cell_id=f"{target}-{changes}", **changes) for target in ("V", "G", "HS", "VS")]


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"H": 0.9, "V": 0.0}, ENCODES),  # one target is enough
        ({"H": 0.02, "V": -0.05}, DOES_NOT),
        ({"H": 0.02, "V": 0.09}, UNDECIDED),  # V may be .1
        ({"H": 0.05}, DOES_NOT),  # there, but it does not matter
        ({"H": -0.9}, DOES_NOT),
    ],
)
def test_leaves_decide(scores: dict[str, float], text: str) -> None:
    drawn = dict.fromkeys(("V", "G", "HS", "VS"), 0.0) | scores
    assert decide([row(value, target=target) for target, value in drawn.items()]).text == text


def test_to_exclude_position_takes_every_target() -> None:
    assert decide([]).text == UNDECIDED
    assert decide([row(0.0)]).text == UNDECIDED
    assert decide([row(0.0), *others()[:3]]).text == UNDECIDED
    assert decide([row(0.0, status="failed", spc=None), *others()]).text == UNDECIDED
    assert decide([row(0.0), *others()]).text == DOES_NOT
    # To find it takes one.
    assert decide([row(0.9)]).text == ENCODES


def test_a_large_score_that_may_be_chance_decides_nothing() -> None:
    assert decide([row([0.9, -0.6, 0.8, -0.5])]).text == UNDECIDED
    assert decide([row([0.4])]).text == UNDECIDED


def test_more_targets_ask_for_more() -> None:
    """p is .0022 for this target alone: significant, but not as one of five."""
    values = [0.3, 0.45, 0.1, 0.22, 0.35]
    alone = decide([row(values)])
    assert 0.001 < alone.evidence[0].p < 0.005
    assert alone.text == ENCODES
    beside = [row([0.1, -0.1, 0.3, -0.3, 0.0], target=target) for target in ("V", "G", "HS", "VS")]
    assert decide([row(values), *beside]).text == UNDECIDED


def test_the_null_with_more_images_counts() -> None:
    few, many = row(0.9), row([0.0, 0.01, -0.01] * 4, control="null", control_of="x")
    assert decide([few, many, *others()]).text == decide([*others(), many, few]).text == DOES_NOT


def test_a_check_of_another_control_with_a_longer_name_is_no_evidence() -> None:
    rows = [row(0.0), *others()]
    stranger = row(0.9, cell_id="s", control="null-strict", control_of="x")
    assert decide([*rows, stranger]).text == decide(rows).text == DOES_NOT


def test_turned_photographs_with_more_of_them_count() -> None:
    def beside(values: list[float], name: str, **changes: Any) -> list[Row]:
        photos = {"images": "photos", "test_images": "photos", **changes}
        turned = {**photos, "test_images": "photos turned", "control": "rotated", "control_of": name}
        return [row(values, cell_id=name, **photos), row(values, cell_id=f"{name} turned", **turned)]

    leaves = [row(0.0), *others()]
    many, few = beside([0.4, 0.41, 0.39] * 5, "many"), beside([0.3, -0.4, 0.1, 0.0], "few")
    for rows in ([*leaves, *many, *few], [*few, *many, *leaves]):
        assert decide(rows).text == f"{DOES_NOT} + {SEAM}"
    # What was fitted on other images is evidence of its own.
    elsewhere = beside([0.0, 0.1, -0.1] * 6, "other", images="leaves")
    parts = {evidence.what for evidence in decide([*leaves, *many, *elsewhere]).evidence}
    assert {"photos: stays when turned", "leaves → photos: stays when turned"} <= parts


def test_cross_fitted_photographs_must_show_more() -> None:
    values = [0.32, 0.5, 0.05, 0.3, 0.36, 0.2]
    photos = {"images": "photos", "test_images": "photos"}
    turned = {**photos, "test_images": "photos turned", "control": "rotated", "control_of": "H"}
    for mutual, text in ((False, f"{DOES_NOT} + {SEAM}"), (True, DOES_NOT)):
        upright = row(values, cell_id="H", mutual=mutual, **photos)
        assert decide([row(0.0), *others(), upright, row(values, cell_id="t", **turned)]).text == text


@pytest.mark.parametrize(
    ("leaves", "upright", "turned", "text"),
    [
        (0.0, 0.4, 0.4, "does not + seam leak"),
        (0.0, 0.4, -0.4, "does not + content"),
        (0.0, 0.6, 0.1, "does not + seam leak + content"),
        (0.0, 0.0, 0.0, "does not"),
        (0.9, 0.6, 0.6, "encodes position"),  # what stays is what leaves show
        (0.9, 0.6, 0.1, "encodes position + content"),
        (0.09, 0.4, 0.4, "undecided"),  # it may be position
        (0.09, 0.4, -0.4, "undecided + content"),
    ],
)
def test_photographs_that_disagree_are_named(leaves: float, upright: float, turned: float, text: str) -> None:
    photos = {"images": "photos", "test_images": "photos"}
    rows = [
        row(leaves, cell_id="null", control="null", control_of="H"),
        row(upright, cell_id="H", **photos),
        row(turned, cell_id="turned", control="rotated", control_of="H", images="photos", test_images="photos turned"),
    ]
    assert decide([*rows, *others()]).text == text
    # A symmetric target cannot tell what turned.
    beside = [changed(other, target="H") if other.target == "G" else other for other in others()]
    assert decide([*(changed(row, target="G") for row in rows), *beside]).text == text.split(" + ")[0]


def test_photographs_alone_decide_nothing() -> None:
    photos = {"images": "photos", "test_images": "photos"}
    rows = [
        row(0.4, cell_id="H", **photos),
        row(0.4, cell_id="turned", control="rotated", control_of="H", images="photos", test_images="photos turned"),
    ]
    assert decide(rows).text == UNDECIDED


def test_every_row_has_its_networks_verdict_and_controls_have_none() -> None:
    rows = [
        row(0.9, cell_id="a"),
        row(0.0, cell_id="b", padding="circular"),
        row(0.0, cell_id="c", padding="none", backbone="none"),
        row(0.9, cell_id="d", control="permuted", control_of="a"),
        row(0.9, cell_id="e", status="failed"),
        *others(padding="circular"),
    ]
    assert [verdict and verdict.text for verdict in verdicts(rows)][:5] == [ENCODES, DOES_NOT, None, None, ENCODES]


def test_verdicts_stand_on_a_board_with_the_extent_of_their_evidence() -> None:
    rows = [
        row(0.9, cell_id="a"),
        row(0.5, cell_id="b", target="V"),
        row(0.0, cell_id="c", padding="circular"),
        *others(padding="circular"),
        row(0.9, cell_id="d", padding="mean", images="photos", test_images="photos"),
        row(0.9, cell_id="e", readout="sgd", seed=1),
    ]
    first, second = verdict_boards(rows)
    assert first.headings == ["verdict", "leaves"]
    [(network, lines)] = first.sections.items()
    assert network == "net, imagenet:net@1"
    assert [(label, *map(entry_text, entries)) for label, entries in lines] == [
        ("zero", ENCODES, "0.50 to 0.90"),
        ("circular", NO_POSITION, "0.00 to 0.00"),
    ]
    assert "readout sgd" in second.caption
    assert list(second.sections) == ["net, imagenet:net@1, readout seed 1"]
    assert verdict_boards(rows[-2:-1]) == []
