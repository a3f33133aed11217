"""Rankings of paddings: hand-worked means and differences, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.bench.row import Row
from posbench.core.statistics import Difference, MeanEstimate
from posbench.report.ranking import difference_text, mean_text, rankings
from tests.rows import make_row

PHOTOGRAPHS = ("a", "b", "c", "d")


def row(padding: str, target: str, scores: tuple[float, ...], **more: Any) -> Row:
    """Return a row whose SPC is the mean of four photographs."""
    by_photograph = {"spc": dict(zip(PHOTOGRAPHS, scores, strict=True))}
    known = {"by_photograph": by_photograph, "weights": "w", "spc": sum(scores) / 4}
    return make_row(**known | {"padding": padding, "target": target} | more)


def test_means_and_differences_are_worked_out_photograph_by_photograph() -> None:
    rows = [
        *(row("zero", "G", (0.8, 0.6, 0.8, 0.6)), row("zero", "H", (0.6, 0.4, 0.6, 0.4))),
        *(row("valid", "G", (0.1, 0.0, 0.1, 0.0)), row("valid", "H", (0.1, 0.0, 0.1, 0.0))),
    ]
    (ranking,) = rankings(rows)
    best, zero = ranking.standings
    assert (best.padding, zero.padding, ranking.targets) == ("valid", "zero", ("G", "H"))
    # By photograph: zero .7 .5 .7 .5, valid .1 0 .1 0; the difference −.6 −.5 −.6 −.5.
    assert zero.mean.value == pytest.approx(0.6)
    assert zero.less is None
    assert best.less is not None
    assert best.less.value == pytest.approx(-0.55)
    # Student's t of 3 degrees times .0577 / 2.
    assert best.less.hi is not None
    assert best.less.hi + 0.55 == pytest.approx(3.18245 * 0.0577350 / 2, rel=1e-4)
    assert ranking.text == (
        "valid hides position best: mean SPC 0.05 ±0.09, -0.55 (-0.64 to -0.46) against zero padding."
    )


def test_what_cannot_be_told_from_the_best_is_named() -> None:
    rows = [row("valid", "G", (0.1, 0.0, 0.1, 0.0)), row("circular", "G", (0.0, 0.2, 0.1, 0.0))]
    (ranking,) = rankings(rows)
    assert ranking.text.endswith("Not significantly different: circular.")
    assert all(standing.less is None for standing in ranking.standings)


def test_one_cell_more_changes_nobodys_answer() -> None:
    rows = [row(padding, target, (0.5, 0.6, 0.5, 0.6)) for padding in ("zero", "circular") for target in "HV"]
    rows += [row("zero", "HS", (0.5, 0.6, 0.5, 0.6))]
    [before] = rankings(rows)
    for target in "GH":
        [after] = rankings([*rows, row("replicate", target, (0.1, 0.2, 0.1, 0.2))])
        assert after.standings == before.standings
        assert after.targets == ("H", "V")
        lacking = "H, V" if target == "G" else "V"
        assert after.left_out == f"Left out: replicate, which lacks {lacking}; HS, which not all paddings have."
    assert before.left_out == "Left out: HS, which not all paddings have."


def test_a_drawing_turned_round_hides_nothing() -> None:
    # Distances from 0: weird .95 ±.05, zero .75 ±.05, circular .05.
    rows = [
        row("zero", "H", (0.7, 0.8, 0.7, 0.8)),
        row("circular", "H", (0.1, 0.0, 0.1, 0.0)),
        row("weird", "H", (-0.9, -1.0, -0.9, -1.0)),
    ]
    [ranking] = rankings(rows)
    assert [standing.padding for standing in ranking.standings] == ["circular", "zero", "weird"]
    weird = ranking.standings[2]
    assert weird.mean.value == pytest.approx(-0.95)
    assert weird.less is not None
    assert weird.less.value == pytest.approx(0.2)
    assert ranking.text.startswith("circular hides position best: mean SPC 0.05")


def test_equally_far_on_either_side_of_0_is_level() -> None:
    rows = [row("a", "H", (0.2, 0.1, 0.2, 0.1)), row("b", "H", (-0.2, -0.1, -0.2, -0.15))]
    [ranking] = rankings(rows)
    assert (ranking.best.padding, ranking.level) == ("a", ["b"])


@pytest.mark.parametrize("zero", [(0.9, -0.3, 0.9, 0.7), (0.0, 0.0, 0.0, 0.1)], ids=["level", "the nearest to 0"])
def test_where_zero_is_level_nothing_is_claimed(zero: tuple[float, ...]) -> None:
    [ranking] = rankings([row("zero", "H", zero), row("circular", "H", (0.4, -0.2, 0.5, 0.0))])
    assert not ranking.significant
    assert ranking.text.startswith("No padding hides position significantly better than zero: ")


def test_of_one_photograph_nothing_can_be_told() -> None:
    single: dict[str, Any] = {"by_photograph": {"spc": {"a": 0.5}}}
    [ranking] = rankings([row("zero", "H", (0.9,) * 4, **single), row("circular", "H", (0.1,) * 4, **single)])
    assert not ranking.significant


def test_zero_may_hide_position_best() -> None:
    [ranking] = rankings([row("zero", "H", (0.1, 0.0, 0.1, 0.0)), row("circular", "H", (0.8, 0.9, 0.8, 0.9))])
    assert ranking.text == "zero hides position best: mean SPC 0.05 ±0.09."


def test_seeds_have_one_answer() -> None:
    # Over seeds, by photograph: zero .7 .6 .7 .6, circular .2 .1 .2 .1.
    scores = {"0": ((0.8, 0.6, 0.8, 0.6), (0.3, 0.1, 0.3, 0.1)), "1": ((0.6, 0.6, 0.6, 0.6), (0.1, 0.1, 0.1, 0.1))}
    rows = [
        row(padding, "H", of[i], weights=f"random:{seed}")
        for seed, of in scores.items()
        for i, padding in enumerate(("zero", "circular"))
    ]
    [ranking] = rankings(rows)
    assert (ranking.network, ranking.weights) == ("net", "untrained, 2 seeds")
    assert [standing.mean.value for standing in ranking.standings] == pytest.approx([0.15, 0.65])
    [ranking] = rankings([*rows, row("zero", "H", (0.9,) * 4, weights="random:2")])
    assert ranking.weights == "untrained, 2 seeds"
    assert ranking.left_out == "Left out: H (untrained, random:2), which not all paddings have."


def test_settings_are_told_apart_by_what_differs() -> None:
    rows = [
        row(padding, "H", (value,) * 4, **more)
        for padding, value in (("zero", 0.9), ("circular", 0.1))
        for more in ({}, {"readout": "sgd"}, {"n_test": 64, "score_at": "image"})
    ]
    crops = "8 training and 4 test crops of 64 px"
    assert [ranking.setting for ranking in rankings(rows)] == [
        f"{crops}, readout ridge",
        f"{crops}, readout sgd",
        "8 training and 64 test crops of 64 px, readout ridge, scored at image size",
    ]
    assert [ranking.tested for ranking in rankings(rows)] == ["4 images", "4 images", "4 photographs"]
    assert [ranking.setting for ranking in rankings(rows[:1] + rows[3:4])] == [""]


def test_controls_failures_and_single_paddings_are_no_answer() -> None:
    rows = [
        row("zero", "G", (0.5,) * 4),
        row("valid", "G", (0.1,) * 4, control="null"),
        row("mean", "G", (0.1,) * 4, status="failed", spc=None),
        row("none", "G", (0.0,) * 4),
    ]
    assert rankings(rows) == []


def test_the_newest_of_two_versions_counts() -> None:
    rows = [
        row("zero", "G", (0.5,) * 4, created="2027"),
        row("zero", "G", (0.9,) * 4, created="2026"),
        row("valid", "G", (0.1,) * 4),
    ]
    (ranking,) = rankings(rows)
    assert [standing.mean.value for standing in ranking.standings] == pytest.approx([0.1, 0.5])


def test_numbers_read_as_people_write_them() -> None:
    assert mean_text(MeanEstimate(-0.001, None, None, 1)) == "0.00"
    assert mean_text(MeanEstimate(0.9512, 0.9502, 0.9522, 9)) == "0.951 ±0.001"
    assert difference_text(Difference(0.1, None, None, None, None)) == "+0.10"
    assert difference_text(Difference(-0.0004, -0.03, 0.02, None, 9)) == "0.00 (-0.03 to +0.02)"
    assert difference_text(Difference(-0.021, -0.024, -0.018, None, 9)) == "-0.021 (-0.024 to -0.018)"
