"""Rows as the design has them, and boards with the best first."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.bench.plan import Cell
from posbench.bench.records import CellRecord, Outcome, Score
from posbench.bench.row import FIRST, LAST, Row
from posbench.core.errors import UsageError
from posbench.core.files import write_atomically
from posbench.network.weights import Weights
from posbench.report.boards import Board, Entry, boards, entry_text
from posbench.report.rows import columns, frame, row, to_csv, to_json
from tests.factories import NET, TRAINED, UNTRAINED, backbone, control, padding, plan, readout, scored, target
from tests.rows import changed

BEGINS = (
    "backbone,weights,padding,images,test_images,target,readout,taps,seed,image_size,precision,score_at,"
    "n_train,n_test,n_test_photos,status,reason,spc,spc_lo,spc_hi,mae,mae_lo,mae_hi,"
)
ENDS = "degenerate,reach,control,control_of,verdict,seconds,cell_id,posbench_version,created"


def record(cell: Cell, outcome: Outcome) -> CellRecord:
    return CellRecord(cell.id, cell.job.id, outcome, "2025-01-02T03:04:05+00:00", "0.1.0")


def rows(scores: dict[tuple[str, ...], float | str | None], half: float | None = 0.1, **changes: Any) -> list[Row]:
    """A row a cell of a plan: its score, or why there is none, by backbone, padding and perhaps target."""
    made = []
    for cell in plan(**changes).cells:
        names = (cell.job.backbone.name, cell.job.padding.name if cell.job.padding else "none", cell.target.name)
        value = scores.get(names, scores.get(names[:2]))
        if isinstance(value, str):
            status, _, reason = value.partition(": ")
            outcome = Outcome(cell.identity(), status, reason)
        elif value is None:
            continue
        else:
            outcome = scored(cell, value, half)
        made.append(row(record(cell, outcome)))
    return made


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def unified(text: str) -> str:
    """A text whose lines end in one way: which one a cell of a CSV keeps is no matter."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_the_header_begins_and_ends_as_scripts_expect() -> None:
    assert to_csv([]) == BEGINS + "r2,r2_lo,r2_hi," + ENDS + "\n"
    [cell] = plan().cells
    others = [Score(name, "1", 0.0, None, None) for name in ("zeta", "alpha", "mae")]
    header = to_csv([row(record(cell, scored(cell, scores=others)))]).splitlines()[0]
    further = "r2,r2_lo,r2_hi,alpha,alpha_lo,alpha_hi,zeta,zeta_lo,zeta_hi,"
    assert header == BEGINS + further + ENDS


def test_a_row_says_all_of_a_cell() -> None:
    [cell] = plan(targets=[target("VS")], networks=[(NET, [UNTRAINED])]).cells
    outcome = scored(cell, 0.5, 0.25, degenerate=0.125, seconds=1.5)
    [line] = parsed(to_csv([row(record(cell, outcome))]))
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
    assert row(record(cell, scored(cell, scores=scores)))["spc"] == 10


@pytest.mark.parametrize("name", ["top_hi", "low_lo", "a_lo_hi"])
def test_a_metric_may_be_called_like_a_bound(name: str) -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(record(cell, scored(cell, 0.5, 0.25, name)))]))
    assert (line[name], line[f"{name}_lo"], line[f"{name}_hi"]) == ("0.5", "0.25", "0.75")


@pytest.mark.parametrize("name", ["seconds", "status", "backbone", "seed"])
def test_a_metric_called_like_a_column_does_not_overwrite_it(name: str) -> None:
    [cell] = plan().cells
    plain = row(record(cell, scored(cell)))
    named = row(record(cell, scored(cell, 0.5, None, name)))
    assert named.get(name) == plain.get(name)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_whole(value: float, seconds: float) -> None:
    [cell] = plan().cells
    made = row(record(cell, scored(cell, value, None, seconds=seconds)))
    [line] = parsed(to_csv([made]))
    assert (float(line["spc"]), float(line["seconds"])) == (value, seconds)
    [shown] = json.loads(to_json([made]))
    assert (shown["spc"], shown["seconds"]) == (value, seconds)


@given(st.sampled_from(["=", "+", "-", "@", "\t", "\r"]), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_is_left_that_a_spreadsheet_would_run(first: str, rest: str) -> None:
    [cell] = plan().cells
    made = row(record(cell, Outcome(cell.identity(), "failed", first + rest)))
    [line] = parsed(to_csv([made]))
    assert line["reason"].startswith("'")
    assert unified(line["reason"]) == "'" + unified(first + rest)
    # JSON is not read by spreadsheets.
    assert json.loads(to_json([made]))[0]["reason"] == first + rest


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith(tuple("=+-@\t\r\n"))))
def test_other_text_is_as_it_was(reason: str) -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(record(cell, Outcome(cell.identity(), "failed", reason)))]))
    assert unified(line["reason"]) == unified(reason)


def test_negative_numbers_are_no_formulas() -> None:
    [cell] = plan().cells
    [line] = parsed(to_csv([row(record(cell, scored(cell, -0.5, 0.25)))]))
    assert (line["spc"], line["spc_lo"], line["spc_hi"]) == ("-0.5", "-0.75", "-0.25")


def test_json_and_frame_have_the_columns_of_the_csv() -> None:
    made = rows(
        {("net", "zero"): 0.5, ("net", "edge"): "skipped: no room"}, paddings=[padding("zero"), padding("edge")]
    )
    names = columns(made)
    assert to_csv(made).splitlines()[0].split(",") == names
    assert [list(shown) for shown in json.loads(to_json(made))] == [names, names]
    table = frame(made)
    assert list(table.columns) == names
    assert table["spc"].tolist()[0] == 0.5
    assert table["spc"].isna().tolist() == [False, True]
    assert frame([]).empty


def test_a_row_is_a_mapping_by_column() -> None:
    [cell] = plan().cells
    made = row(record(cell, scored(cell, 0.5, 0.25)))
    assert list(made) == [*FIRST, "spc", "spc_lo", "spc_hi", *LAST]
    assert (made["spc_lo"], made["target"], made.get("mae"), "mae" in made) == (0.25, "H", None, False)
    assert made.by_photograph("spc") == {"a@1": 0.5}
    assert made.by_photograph("mae") == {}
    with pytest.raises(KeyError, match="spc_mid"):
        made["spc_mid"]


def test_a_row_comes_back_from_its_columns() -> None:
    [cell] = plan().cells
    made = row(record(cell, scored(cell, scores=[Score("spc", "", 0.5, 0.25, 0.75, {"a@1": 0.5})])))
    by_photograph = {"spc": made.by_photograph("spc")}
    assert Row.from_columns({**made, "mae": None, "mae_lo": None, "mae_hi": None}, by_photograph) == made


PADDINGS = [padding(name) for name in ("zero", "circular", "reflect")]


def labels(board: Board, section: str = "H") -> list[str]:
    return [label for label, _ in board.sections[section]]


@pytest.mark.parametrize(
    ("higher_is_better", "order"), [(True, ["reflect", "zero", "circular"]), (False, ["circular", "zero", "reflect"])]
)
def test_the_best_line_is_first(higher_is_better: bool, order: list[str]) -> None:
    scores: Any = {("net", "zero"): 0.5, ("net", "circular"): -0.25, ("net", "reflect"): 0.75}
    [board] = boards(rows(scores, paddings=PADDINGS), "spc", higher_is_better=higher_is_better)
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
    made = rows(scores, networks=networks, paddings=PADDINGS, targets=[target("H"), target("V")])
    [board] = boards(made, "spc", higher_is_better=True)
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
    made = rows(scores, networks=networks, paddings=PADDINGS[:2])
    [board] = boards(made, "spc", higher_is_better=True, by="backbone")
    assert board.headings == ["zero", "circular"]
    assert labels(board) == ["b\nimagenet:net@1", "a\nimagenet:net@1"]
    assert [[entry.value for entry in entries] for _, entries in board.sections["H"]] == [[0.75, 0.5], [0.25, 0.5]]


def test_the_control_stands_last_and_beside_every_padding() -> None:
    scores: Any = {("net", "zero"): 0.5, ("net", "circular"): 0.25, ("none", "none"): 0.125}
    made = rows(scores, networks=[control(), (NET, [TRAINED])], paddings=PADDINGS[:2])
    [board] = boards(made, "spc", higher_is_better=True)
    assert board.headings == ["net\nimagenet:net@1", "none\nnone"]
    assert [[entry.value for entry in entries] for _, entries in board.sections["H"]] == [[0.5, 0.125], [0.25, 0.125]]
    # What does not change from line to line is best nowhere.
    assert not any(entries[1].best for _, entries in board.sections["H"])


def test_the_control_alone_makes_a_board() -> None:
    [board] = boards(rows({("none", "none"): 0.125}, networks=[control()]), "spc", higher_is_better=True)
    assert labels(board) == ["none"]
    assert board.sections["H"][0][1][0].value == 0.125


def test_the_control_stands_beside_networks_whose_taps_were_chosen() -> None:
    changes: dict[str, Any] = {"networks": [(NET, [TRAINED]), control()], "taps": ["1", "2"]}
    made = rows({("net", "zero"): 0.5, ("none", "none"): 0.1}, **changes)
    tables = boards(made, "spc", higher_is_better=True)
    assert ["taps 1" in table.caption for table in tables] == [True, False]
    assert [len(table.headings) for table in tables] == [2, 2]


def test_the_control_stands_on_every_board_whatever_its_taps() -> None:
    networks: dict[str, Any] = {"networks": [(NET, [TRAINED]), control()]}
    scores: dict[tuple[str, ...], float | str | None] = {("net", "zero"): 0.5, ("none", "none"): 0.1}
    one = [r for r in rows(scores, **networks, taps=["1"]) if r["backbone"] == "net"]
    every = rows(scores, **networks, taps=["all"])
    for table in boards(one + every, "spc", higher_is_better=True):
        assert [heading.partition("\n")[0] for heading in table.headings] == ["net", "none"]


def test_of_several_versions_the_newest_result_is_shown_and_the_others_are_told_of() -> None:
    older, newer = (rows({("net", "zero"): score})[0] for score in (0.9, 0.2))
    older = changed(older, created="2025-01-01T00:00:00+00:00")
    newer = changed(newer, created="2025-01-02T00:00:00+00:00")
    for both in ([older, newer], [newer, older]):
        (table,) = boards(both, "spc", higher_is_better=True)
        assert [entry.value for _, entries in table.sections["H"] for entry in entries] == [0.2]
        assert "1 older results, of other versions of these components, are in the CSV alone" in table.notes


def test_a_board_without_scores_claims_no_interval() -> None:
    made = rows({("net", "zero"): "skipped: no room"})
    (table,) = boards(made, "spc", higher_is_better=True)
    assert "interval" not in table.caption


def test_trained_and_untrained_networks_are_never_mistaken() -> None:
    weights = [TRAINED, UNTRAINED, Weights("random:1", seed=1), Weights("file:a.pt@12345678", "1")]
    made = rows({("net", "zero"): 0.5}, networks=[(NET, weights)])
    [board] = boards(made, "spc", higher_is_better=True)
    assert board.headings == [
        "net\nimagenet:net@1",
        "net\nuntrained, random:0",
        "net\nuntrained, random:1",
        "net\nfile:a.pt@12345678",
        "net\nuntrained, 2 seeds",
    ]


def test_readouts_with_seeds_have_a_column_each() -> None:
    made = rows({("net", "zero"): 0.5}, readouts=[readout("sgd", stochastic=True)], seeds=[0, 4])
    [board] = boards(made, "spc", higher_is_better=True)
    assert board.headings == [
        "net\nimagenet:net@1\nreadout seed 0",
        "net\nimagenet:net@1\nreadout seed 4",
        "net\nimagenet:net@1, 2 seeds",
    ]


def test_several_seeds_are_summarised_beside_their_columns() -> None:
    made = rows({("net", "zero"): 0.5}, networks=[(NET, [UNTRAINED, Weights("random:1", seed=1)])])
    made[1] = changed(made[1], spc=0.25)
    [board] = boards(made, "spc", higher_is_better=True)
    _, entries = board.sections["H"][0]
    assert [entry_text(entry) for entry in entries] == ["0.50 ±0.10", "0.25 ±0.10", "0.38 (0.25 to 0.50)"]


def test_what_cannot_be_compared_stands_on_boards_of_its_own() -> None:
    made = rows({("net", "zero"): 0.5}) + rows({("net", "zero"): 0.25}, image_size=72)
    made += rows({("net", "zero"): 0.125}, taps=["1"])
    found = boards(made, "spc", higher_is_better=True)
    assert [board.sections["H"][0][1][0].value for board in found] == [0.5, 0.25, 0.125]
    assert boards([], "spc", higher_is_better=True) == []


def test_skipped_and_failed_cells_are_told_in_notes() -> None:
    scores: Any = {
        ("net", "zero"): 0.5,
        ("net", "circular"): "skipped: the map is narrower than the padding",
        ("net", "reflect"): "failed: ValueError: broke",
        ("net", "edge"): "skipped: the map is narrower than the padding",
    }
    made = rows(scores, paddings=[*PADDINGS, padding("edge")], targets=[target("H"), target("V")])
    [board] = boards(made, "spc", higher_is_better=True)
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
    [board] = boards(rows({("net", "zero"): 0.5}), "mae", higher_is_better=False)
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


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_atomically(path, "é\r\n1\n")
    assert path.read_bytes() == "é\r\n1\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    write_atomically(path, "again")
    assert path.read_text() == "again"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "missing" / "rows.csv", tmp_path / "folder"):
        with pytest.raises(UsageError, match=r"cannot be written \(.*\): check the folder and the disk"):
            write_atomically(place, "text")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "rows.csv", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_atomically(tmp_path / "link.csv", "after")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "after"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert pipe.is_fifo()
        assert os.read(reading, 100) == b"text"
    finally:
        os.close(reading)
