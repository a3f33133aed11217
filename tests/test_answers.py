"""Which padding hides position best: hand-worked means and differences, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.answers import answers, difference_text, mean_text
from posbench.statistics import Difference, Mean

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
        "valid hides position best: mean SPC 0.05 ±0.09, −0.55 (−0.64 to −0.46) against zero padding."
    )


def test_what_cannot_be_told_from_the_best_is_named() -> None:
    rows = [row("valid", "G", (0.1, 0.0, 0.1, 0.0)), row("circular", "G", (0.0, 0.2, 0.1, 0.0))]
    (answer,) = answers(rows)
    assert answer.text.endswith("Not to be told from it: circular.")
    assert all(one.less is None for one in answer.standings)


def test_only_targets_that_all_paddings_share_count() -> None:
    rows = [row("zero", "G", (0.5,) * 4), row("zero", "H", (0.9,) * 4), row("valid", "G", (0.1,) * 4)]
    (answer,) = answers(rows)
    assert answer.targets == ("G",)
    assert [one.mean.value for one in answer.standings] == pytest.approx([0.1, 0.5])


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
    assert mean_text(Mean(-0.001, None, None, 1)) == "0.00"
    assert difference_text(Difference(0.1, None, None, None, None)) == "+0.10"
