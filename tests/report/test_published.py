"""Which published number answers to which row of ours, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posbench.core.errors import UsageError
from posbench.report.published import published


def found(table: str, **changes: Any) -> dict[str, float]:
    row = {
        "backbone": "vgg16",
        "padding": "zero",
        "test_images": "photos",
        "target": "H",
        "readout": "sgd",
        "taps": "all",
    }
    return dict(published(f"islam2020-table{table}").find(row | changes))


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
    assert found(table, **changes) == {"spc": spc, "mae": mae}


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
    assert found(table, **changes) == {}


def test_errors_of_stripes_are_compared_on_the_papers_scale_alone() -> None:
    assert found("1", target="HS") == {"spc": 0.405}
    assert found("1", target="HS-signed") == {"spc": 0.405, "mae": 0.556}


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(UsageError, match=r"no published table 'islam2020-table9': choose islam2020-table1, "):
        published("islam2020-table9")
