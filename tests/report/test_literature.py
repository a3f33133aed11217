"""Our rows beside a paper's numbers, and the number that corresponds to each row, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.bench.row import SETTINGS
from posbench.core.errors import UsageError
from posbench.report.literature import SETTING_COLUMNS, compare, headings, published, to_markdown
from tests.rows import changed, make_row

TABLE = published("islam2020-table1")
ROW = make_row(
    backbone="vgg16",
    weights="imagenet:timm/vgg16.tv_in1k",
    readout="sgd",
    seed=0,
    image_size=224,
    score_at="image",
    spc=0.7,
    spc_lo=0.6,
    spc_hi=0.8,
    mae=0.15,
)


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
        changed(ROW, target="V"),
        changed(ROW, readout="ridge", seed=None),
        changed(ROW, target="V", readout="ridge", seed=None),
    ]
    compared = compare(rows, TABLE)
    # That ridge has no seed is no difference; which of two seeds it was would be.
    assert compared.labels == ["target", "readout"]
    assert [labels for labels, _ in compared.lines] == [["H", "sgd"], ["H", "ridge"], ["V", "sgd"], ["V", "ridge"]]
    assert compare([ROW, changed(ROW, seed=1)], TABLE).labels == ["target", "seed"]


def test_rows_of_other_settings_are_told_apart() -> None:
    compared = compare([ROW, changed(ROW, images="leaves", n_train=16)], TABLE)
    assert compared.labels == ["target", "images", "n_train"]
    assert [labels for labels, _ in compared.lines] == [["H", "photos", "8"], ["H", "leaves", "16"]]
    assert "n_train" not in compared.constant


def test_an_untrained_network_is_told_from_the_papers() -> None:
    (note,) = compare([changed(ROW, weights="random:0")], TABLE).notes
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
    [given] = compare([changed(ROW, **changes)], TABLE).notes
    assert given.startswith(note)
    # Rows without a published number have no notes.
    assert compare([changed(ROW, **changes, target="HS-signed", padding="circular")], TABLE).notes == []


def test_torchvisions_weights_may_be_named() -> None:
    [(_, [(*_, difference), _])] = compare([changed(ROW, backbone="vgg16.tv_in1k")], TABLE).lines
    assert difference == "-0.042"


def test_what_has_no_score_or_no_counterpart() -> None:
    skipped = changed(ROW, status="skipped", reason="too small", spc=None, mae=None)
    compared = compare([skipped, changed(ROW, test_images="leaves")], TABLE)
    assert [numbers[0] for _, numbers in compared.lines] == [
        ("skipped [1]", "0.742", "–"),
        ("0.700 ±0.100", "–", "–"),
    ]
    assert compared.notes == ["[1] too small"]


def test_markdown_has_a_column_for_each_heading() -> None:
    compared = compare([ROW, changed(ROW, backbone="a|b")], TABLE)
    lines = to_markdown(compared).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 4
    assert "a\\|b" in table[3]
    assert all(line.replace("\\|", "").count("|") == len(headings(compared)) + 1 for line in table)


def test_no_rows_make_an_empty_table() -> None:
    assert compare([], TABLE).lines == []


def printed(table: str, **changes: Any) -> dict[str, float]:
    """Return the scores that a table prints for a row."""
    row = make_row(**{"backbone": "vgg16", "readout": "sgd"} | changes)
    return dict(published(f"islam2020-table{table}").find(row))


@pytest.mark.parametrize(
    ("table", "changes", "spc", "mae"),
    [
        ("1", {}, 0.742, 0.149),
        ("1", {"readout": "ridge"}, 0.742, 0.149),
        ("1", {"readout": "sgd-text"}, 0.742, 0.149),
        ("1", {"readout": "ridge-cv"}, 0.742, 0.149),
        ("1", {"test_images": "folder:PASCAL-S@01234567"}, 0.742, 0.149),
        ("1", {"test_images": "pixels:mine@01234567"}, 0.742, 0.149),
        ("1", {"test_images": "white", "backbone": "resnet152", "target": "V"}, 0.979, 0.072),
        ("1", {"target": "VS-signed", "test_images": "noise"}, 0.526, 0.566),
        ("1", {"backbone": "none", "padding": "none", "target": "G"}, -0.001, 0.233),
        ("2a", {"readout": "sgd-depth3"}, 0.830, 0.117),
        ("2a", {"readout": "sgd-text-depth2", "target": "G"}, 0.828, 0.105),
        ("2b", {"readout": "ridge-k7", "target": "HS-signed"}, 0.487, 0.532),
        ("2b", {"readout": "sgd-k1", "backbone": "none", "padding": "none"}, 0.013, 0.251),
        ("3", {"taps": "4"}, 0.610, 0.181),
        ("4", {"padding": "valid", "target": "G"}, 0.359, 0.174),
        ("4", {"readout": "ridge-cv-pad2", "backbone": "none", "padding": "none"}, 0.397, 0.223),
    ],
)
def test_the_number_that_answers(table: str, changes: dict[str, str], spc: float, mae: float) -> None:
    assert printed(table, **changes) == {"spc": spc, "mae": mae}


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("1", {"backbone": "resnet18"}),
        ("1", {"padding": "circular"}),
        ("1", {"readout": "sgd-k7"}),
        ("1", {"readout": "sgd-pad1"}),
        ("1", {"readout": "theirs"}),
        ("1", {"readout": "sgd-k1-pad1"}),
        ("1", {"taps": "5"}),
        ("1", {"taps": "1+2"}),
        ("1", {"test_images": "leaves"}),
        ("1", {"target": "diagonal"}),
        ("2a", {"readout": "sgd-k7"}),
        ("4", {"padding": "valid", "readout": "sgd-pad1"}),
    ],
)
def test_what_the_paper_did_not_measure(table: str, changes: dict[str, str]) -> None:
    assert printed(table, **changes) == {}


def test_errors_of_stripes_are_compared_on_the_papers_scale_alone() -> None:
    assert printed("1", target="HS") == {"spc": 0.405}
    assert printed("1", target="HS-signed") == {"spc": 0.405, "mae": 0.556}


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(UsageError, match=r"no published table 'islam2020-table9': choose islam2020-table1, "):
        published("islam2020-table9")


def test_every_setting_of_a_row_is_named() -> None:
    assert {*SETTING_COLUMNS, "target"} == {*SETTINGS}
