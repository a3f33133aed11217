"""Which padding hides position best: hand-worked means and differences, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.core.statistics import Difference, MeanEstimate
from posbench.report.ranking import answers, difference_text, mean_text

PHOTOGRAPHS = ("a", "b", "c", "d")


def row(padding: str, target: str, scores: tuple[float, ...], **more: Any) -> dict[str, Any]:
    known = {
        "backbone": "net",
        "weights": "w",
        "images": "photos",
        "test_images": "photos",
        "readout": "ridge",
        "taps": "all",
        "seed": None,
        "image_size": 64,
        "precision": "fp32",
        "score_at": "grid",
        "n_train": 8,
        "n_test": 4,
        "control": None,
        "control_of": None,
        "status": "ok",
        "created": "2026",
    }
    values = dict(zip(PHOTOGRAPHS, scores, strict=True))
    of = {"padding": padding, "target": target, "spc": sum(scores) / 4, "by_photograph": {"spc": values}}
    return known | of | more


def test_means_and_differences_are_worked_out_photograph_by_photograph() -> None:
    rows = [
        *(row("zero", "G", (0.8, 0.6, 0.8, 0.6)), row("zero", "H", (0.6, 0.4, 0.6, 0.4))),
        *(row("valid", "G", (0.1, 0.0, 0.1, 0.0)), row("valid", "H", (0.1, 0.0, 0.1, 0.0))),
    ]
    (answer,) = answers(rows)
    best, zero = answer.standings
    assert (best.padding, zero.padding, answer.targets) == ("valid", "zero", ("G", "H"))
    # By photograph: zero .7 .5 .7 .5, valid .1 0 .1 0; the difference −.6 −.5 −.6 −.5.
    assert zero.mean.value == pytest.approx(0.6)
    assert zero.less is None
    assert best.less is not None
    assert best.less.value == pytest.approx(-0.55)
    # Student's t of 3 degrees times .0577 / 2.
    assert best.less.hi is not None
    assert best.less.hi + 0.55 == pytest.approx(3.18245 * 0.0577350 / 2, rel=1e-4)
    assert answer.text == (
        "valid hides position best: mean SPC 0.05 ±0.09, -0.55 (-0.64 to -0.46) against zero padding."
    )


def test_what_cannot_be_told_from_the_best_is_named() -> None:
    rows = [row("valid", "G", (0.1, 0.0, 0.1, 0.0)), row("circular", "G", (0.0, 0.2, 0.1, 0.0))]
    (answer,) = answers(rows)
    assert answer.text.endswith("Not to be told from it: circular.")
    assert all(one.less is None for one in answer.standings)


def test_one_cell_more_changes_nobodys_answer() -> None:
    rows = [row(padding, target, (0.5, 0.6, 0.5, 0.6)) for padding in ("zero", "circular") for target in "HV"]
    rows += [row("zero", "HS", (0.5, 0.6, 0.5, 0.6))]
    [before] = answers(rows)
    for target in "GH":
        [after] = answers([*rows, row("replicate", target, (0.1, 0.2, 0.1, 0.2))])
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
    [answer] = answers(rows)
    assert [one.padding for one in answer.standings] == ["circular", "zero", "weird"]
    weird = answer.standings[2]
    assert weird.mean.value == pytest.approx(-0.95)
    assert weird.less is not None
    assert weird.less.value == pytest.approx(0.2)
    assert answer.text.startswith("circular hides position best: mean SPC 0.05")


def test_equally_far_on_either_side_of_0_is_level() -> None:
    rows = [row("a", "H", (0.2, 0.1, 0.2, 0.1)), row("b", "H", (-0.2, -0.1, -0.2, -0.15))]
    [answer] = answers(rows)
    assert (answer.best.padding, answer.level) == ("a", ["b"])


@pytest.mark.parametrize("zero", [(0.9, -0.3, 0.9, 0.7), (0.0, 0.0, 0.0, 0.1)], ids=["level", "the nearest to 0"])
def test_where_zero_is_level_nothing_is_claimed(zero: tuple[float, ...]) -> None:
    [answer] = answers([row("zero", "H", zero), row("circular", "H", (0.4, -0.2, 0.5, 0.0))])
    assert not answer.told
    assert answer.text.startswith("No padding can be told to hide position better than zero: ")


def test_of_one_photograph_nothing_can_be_told() -> None:
    one = {"by_photograph": {"spc": {"a": 0.5}}}
    [answer] = answers([row("zero", "H", (0.9,) * 4, **one), row("circular", "H", (0.1,) * 4, **one)])
    assert not answer.told


def test_zero_may_hide_position_best() -> None:
    [answer] = answers([row("zero", "H", (0.1, 0.0, 0.1, 0.0)), row("circular", "H", (0.8, 0.9, 0.8, 0.9))])
    assert answer.text == "zero hides position best: mean SPC 0.05 ±0.09."


def test_seeds_have_one_answer() -> None:
    # Over seeds, by photograph: zero .7 .6 .7 .6, circular .2 .1 .2 .1.
    scores = {"0": ((0.8, 0.6, 0.8, 0.6), (0.3, 0.1, 0.3, 0.1)), "1": ((0.6, 0.6, 0.6, 0.6), (0.1, 0.1, 0.1, 0.1))}
    rows = [
        row(padding, "H", of[i], weights=f"random:{seed}")
        for seed, of in scores.items()
        for i, padding in enumerate(("zero", "circular"))
    ]
    [answer] = answers(rows)
    assert (answer.network, answer.weights) == ("net", "untrained, 2 seeds")
    assert [one.mean.value for one in answer.standings] == pytest.approx([0.15, 0.65])
    [answer] = answers([*rows, row("zero", "H", (0.9,) * 4, weights="random:2")])
    assert answer.weights == "untrained, 2 seeds"
    assert answer.left_out == "Left out: H (untrained, random:2), which not all paddings have."


def test_settings_are_told_apart_by_what_differs() -> None:
    rows = [
        row(padding, "H", (value,) * 4, **more)
        for padding, value in (("zero", 0.9), ("circular", 0.1))
        for more in ({}, {"readout": "sgd"}, {"n_test": 64, "score_at": "image"})
    ]
    crops = "8 training and 4 test crops of 64 px"
    assert [one.setting for one in answers(rows)] == [
        f"{crops}, readout ridge",
        f"{crops}, readout sgd",
        "8 training and 64 test crops of 64 px, readout ridge, scored at image size",
    ]
    assert [one.tested for one in answers(rows)] == ["4 images", "4 images", "4 photographs"]
    assert [one.setting for one in answers(rows[:1] + rows[3:4])] == [""]


def test_controls_failures_and_single_paddings_are_no_answer() -> None:
    rows = [
        row("zero", "G", (0.5,) * 4),
        row("valid", "G", (0.1,) * 4, control="null"),
        row("mean", "G", (0.1,) * 4, status="failed", spc=None),
        row("none", "G", (0.0,) * 4),
    ]
    assert answers(rows) == []


def test_the_newest_of_two_versions_counts() -> None:
    rows = [
        row("zero", "G", (0.5,) * 4, created="2027"),
        row("zero", "G", (0.9,) * 4, created="2026"),
        row("valid", "G", (0.1,) * 4),
    ]
    (answer,) = answers(rows)
    assert [one.mean.value for one in answer.standings] == pytest.approx([0.1, 0.5])


def test_numbers_read_as_people_write_them() -> None:
    assert mean_text(MeanEstimate(-0.001, None, None, 1)) == "0.00"
    assert mean_text(MeanEstimate(0.9512, 0.9502, 0.9522, 9)) == "0.951 ±0.001"
    assert difference_text(Difference(0.1, None, None, None, None)) == "+0.10"
    assert difference_text(Difference(-0.0004, -0.03, 0.02, None, 9)) == "0.00 (-0.03 to +0.02)"
    assert difference_text(Difference(-0.021, -0.024, -0.018, None, 9)) == "-0.021 (-0.024 to -0.018)"
