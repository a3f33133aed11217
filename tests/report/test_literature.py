"""Our rows beside a paper's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.report.literature import compare, headings, to_markdown
from posbench.report.published import published

TABLE = published("islam2020-table1")
ROW: dict[str, Any] = {
    "backbone": "vgg16",
    "weights": "imagenet:timm/vgg16.tv_in1k",
    "padding": "zero",
    "images": "photos",
    "test_images": "photos",
    "target": "H",
    "readout": "sgd",
    "taps": "all",
    "seed": 0,
    "image_size": 224,
    "precision": "fp32",
    "score_at": "image",
    "n_train": 8,
    "n_test": 4,
    "status": "ok",
    "reason": "",
    "spc": 0.7,
    "spc_lo": 0.6,
    "spc_hi": 0.8,
    "mae": 0.15,
    "mae_lo": None,
    "mae_hi": None,
    "control": None,
}


def test_measured_published_and_the_difference() -> None:
    compared = compare([ROW], TABLE)
    assert compared.labels == ["target"]
    assert compared.lines == [(["H"], [("0.700 ±0.100", "0.742", "-0.042"), ("0.150", "0.149", "+0.001")])]
    assert "backbone vgg16; weights imagenet:timm/vgg16.tv_in1k; padding zero; readout sgd" in compared.constant
    assert "image_size 224; n_train 8; n_test 4" in compared.constant
    assert compared.notes == []


def test_what_varies_has_a_column_and_targets_stand_together() -> None:
    rows = [
        ROW,
        ROW | {"target": "V"},
        ROW | {"readout": "ridge", "seed": None},
        ROW | {"target": "V", "readout": "ridge", "seed": None},
    ]
    compared = compare(rows, TABLE)
    # That ridge has no seed is no difference; which of two seeds it was would be.
    assert compared.labels == ["target", "readout"]
    assert [labels for labels, _ in compared.lines] == [["H", "sgd"], ["H", "ridge"], ["V", "sgd"], ["V", "ridge"]]
    assert compare([ROW, ROW | {"seed": 1}], TABLE).labels == ["target", "seed"]


def test_rows_of_other_settings_are_told_apart() -> None:
    compared = compare([ROW, ROW | {"images": "leaves", "n_train": 16}], TABLE)
    assert compared.labels == ["target", "images", "n_train"]
    assert [labels for labels, _ in compared.lines] == [["H", "photos", "8"], ["H", "leaves", "16"]]
    assert "n_train" not in compared.constant


def test_an_untrained_network_is_told_from_the_papers() -> None:
    (note,) = compare([ROW | {"weights": "random:0"}], TABLE).notes
    assert note == "vgg16: untrained here, trained on ImageNet in the paper"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"weights": "imagenet:timm/resnet152.a1h_in1k", "backbone": "resnet152"},
            "imagenet:timm/resnet152.a1h_in1k: not",
        ),
        ({"images": "leaves"}, "leaves: trained on here; the paper trains on photographs"),
        ({"image_size": 64}, "64 px: to a side here; the paper's images have 224 px"),
        ({"score_at": "grid"}, "scored on the readout's grid; the paper scores at image size"),
    ],
)
def test_what_the_paper_did_otherwise_is_said(changes: dict[str, Any], note: str) -> None:
    [found] = compare([ROW | changes], TABLE).notes
    assert found.startswith(note)
    # Of rows that stand beside nothing there is nothing to say.
    assert compare([ROW | changes | {"target": "HS-signed", "padding": "circular"}], TABLE).notes == []


def test_torchvisions_weights_may_be_named() -> None:
    [(_, [(*_, difference), _])] = compare([ROW | {"backbone": "vgg16.tv_in1k"}], TABLE).lines
    assert difference == "-0.042"


def test_what_has_no_score_or_no_counterpart() -> None:
    skipped = ROW | {"status": "skipped", "reason": "too small", "spc": None, "mae": None}
    compared = compare([skipped, ROW | {"test_images": "leaves"}], TABLE)
    assert [numbers[0] for _, numbers in compared.lines] == [
        ("skipped [1]", "0.742", "–"),
        ("0.700 ±0.100", "–", "–"),
    ]
    assert compared.notes == ["[1] too small"]


def test_markdown_has_a_column_for_each_heading() -> None:
    compared = compare([ROW, ROW | {"backbone": "a|b"}], TABLE)
    lines = to_markdown(compared).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 4
    assert "a\\|b" in table[3]
    assert all(line.replace("\\|", "").count("|") == len(headings(compared)) + 1 for line in table)


def test_no_rows_make_an_empty_table() -> None:
    assert compare([], TABLE).lines == []
