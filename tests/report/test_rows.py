"""Rows of cells, and tables of them as CSV, JSON and data frames."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.bench.records import Outcome, Score
from posbench.bench.row import FIRST, LAST, Row
from posbench.report.rows import columns, frame, row, to_csv, to_json
from tests.factories import NET, UNTRAINED, padding, plan, scored, target
from tests.rows import CONTROLS, cell_record, plan_rows

BEGINS = (
    "backbone,weights,padding,images,test_images,target,readout,taps,seed,image_size,precision,score_at,"
    "n_train,n_test,n_test_photos,status,reason,spc,spc_lo,spc_hi,mae,mae_lo,mae_hi,"
)
ENDS = "degenerate,reach,control,control_of,verdict,seconds,cell_id,posbench_version,created"


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def unified(text: str) -> str:
    """Return a text with one kind of line end; either may be kept in a CSV."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_the_header_begins_and_ends_as_scripts_expect() -> None:
    assert to_csv([]) == BEGINS + "r2,r2_lo,r2_hi," + ENDS + "\n"
    [cell] = plan().cells
    others = [Score(name, "1", 0.0, None, None) for name in ("zeta", "alpha", "mae")]
    header = to_csv([row(cell_record(cell, scored(cell, scores=others)))]).splitlines()[0]
    further = "r2,r2_lo,r2_hi,alpha,alpha_lo,alpha_hi,zeta,zeta_lo,zeta_hi,"
    assert header == BEGINS + further + ENDS


def test_a_row_says_all_of_a_cell() -> None:
    [cell] = plan(targets=[target("VS")], networks=[(NET, [UNTRAINED])]).cells
    outcome = scored(cell, 0.5, 0.25, degenerate=0.125, seconds=1.5)
    [line] = parsed(to_csv([row(cell_record(cell, outcome))]))
    assert line == {
        "backbone": "net",
        "weights": "random:0",
        "padding": "zero",
        "images": "photos",
        "test_images": "photos",
        "target": "VS",
        "readout": "ridge",
        "taps": "all",
        "seed": "",
        "image_size": "64",
        "precision": "fp32",
        "score_at": "grid",
        "n_train": "8",
        "n_test": "4",
        "n_test_photos": "3",
        "status": "ok",
        "reason": "",
        "spc": "0.5",
        "spc_lo": "0.25",
        "spc_hi": "0.75",
        **dict.fromkeys(["mae", "mae_lo", "mae_hi", "r2", "r2_lo", "r2_hi"], ""),
        "degenerate": "0.125",
        **dict.fromkeys(["reach", "control", "control_of", "verdict"], ""),
        "seconds": "1.5",
        "cell_id": cell.id,
        "posbench_version": "0.1.0",
        "created": "2025-01-02T03:04:05+00:00",
    }


def test_the_newest_version_of_a_metric_is_shown() -> None:
    [cell] = plan().cells
    scores = [Score("spc", version, float(version), None, None) for version in ("9", "10", "2")]
    assert row(cell_record(cell, scored(cell, scores=scores)))["spc"] == 10


@pytest.mark.parametrize("name", ["top_hi", "low_lo", "a_lo_hi"])
def test_a_metric_may_be_called_like_a_bound(name: str) -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(cell_record(cell, scored(cell, 0.5, 0.25, name)))]))
    assert (line[name], line[f"{name}_lo"], line[f"{name}_hi"]) == ("0.5", "0.25", "0.75")


@pytest.mark.parametrize("name", ["seconds", "status", "backbone", "seed"])
def test_a_metric_called_like_a_column_does_not_overwrite_it(name: str) -> None:
    [cell] = plan().cells
    plain = row(cell_record(cell, scored(cell)))
    named = row(cell_record(cell, scored(cell, 0.5, None, name)))
    assert named.get(name) == plain.get(name)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_whole(value: float, seconds: float) -> None:
    [cell] = plan().cells
    shown_row = row(cell_record(cell, scored(cell, value, None, seconds=seconds)))
    [line] = parsed(to_csv([shown_row]))
    assert (float(line["spc"]), float(line["seconds"])) == (value, seconds)
    [shown] = json.loads(to_json([shown_row]))
    assert (shown["spc"], shown["seconds"]) == (value, seconds)


@given(st.sampled_from(["=", "+", "-", "@", "\t", "\r"]), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_is_left_that_a_spreadsheet_would_run(first: str, rest: str) -> None:
    [cell] = plan().cells
    shown_row = row(cell_record(cell, Outcome(cell.identity(), "failed", first + rest)))
    [line] = parsed(to_csv([shown_row]))
    assert line["reason"].startswith("'")
    assert unified(line["reason"]) == "'" + unified(first + rest)
    # JSON is not read by spreadsheets.
    assert json.loads(to_json([shown_row]))[0]["reason"] == first + rest


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith(tuple("=+-@\t\r\n"))))
def test_other_text_is_as_it_was(reason: str) -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(cell_record(cell, Outcome(cell.identity(), "failed", reason)))]))
    assert unified(line["reason"]) == unified(reason)


def test_negative_numbers_are_no_formulas() -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(cell_record(cell, scored(cell, -0.5, 0.25)))]))
    assert (line["spc"], line["spc_lo"], line["spc_hi"]) == ("-0.5", "-0.75", "-0.25")


def test_json_and_frame_have_the_columns_of_the_csv() -> None:
    every = plan_rows(
        {("net", "zero"): 0.5, ("net", "edge"): "skipped: no room"}, paddings=[padding("zero"), padding("edge")]
    )
    names = columns(every)
    assert to_csv(every).splitlines()[0].split(",") == names
    assert [list(shown) for shown in json.loads(to_json(every))] == [names, names]
    table = frame(every)
    assert list(table.columns) == names
    assert table["spc"].tolist()[0] == 0.5
    assert table["spc"].isna().tolist() == [False, True]
    assert frame([]).empty


def test_a_row_is_a_mapping_by_column() -> None:
    [cell] = plan().cells
    shown_row = row(cell_record(cell, scored(cell, 0.5, 0.25)))
    assert list(shown_row) == [*FIRST, "spc", "spc_lo", "spc_hi", *LAST]
    assert (shown_row["spc_lo"], shown_row["target"]) == (0.25, "H")
    assert (shown_row.get("mae"), "mae" in shown_row) == (None, False)
    assert shown_row.by_photograph("spc") == {"a@1": 0.5}
    assert shown_row.by_photograph("mae") == {}
    with pytest.raises(KeyError, match="spc_mid"):
        shown_row["spc_mid"]


def test_a_row_comes_back_from_its_columns() -> None:
    [cell] = plan().cells
    shown_row = row(cell_record(cell, scored(cell, scores=[Score("spc", "", 0.5, 0.25, 0.75, {"a@1": 0.5})])))
    by_photograph = {"spc": shown_row.by_photograph("spc")}
    assert (
        Row.from_columns({**shown_row, "mae": None, "mae_lo": None, "mae_hi": None}, CONTROLS, by_photograph)
        == shown_row
    )
