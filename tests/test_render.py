"""Tables and pictures as text."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from posbench import render
from posbench.boards import Board, Entry
from tests.made import plan


def printed(what: Any, width: int = 100, **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(what)
    return stream.getvalue()


def board(**changes: Any) -> Board:
    defaults: dict[str, Any] = {
        "title": "spc on photos",
        "caption": "higher is better",
        "section": "target",
        "by": "padding",
        "headings": ["vgg16\nrandom:0", "none\nnone"],
        "sections": {
            "H": [
                ("zero", [Entry(0.912, 0.05, best=True, status="ok"), Entry(-0.001, None, status="ok")]),
                ("reflect", [Entry(status="skipped", note=1), Entry()]),
            ],
            "V": [("zero", [Entry(status="failed", note=2), Entry()])],
        },
        "notes": ["[1] vgg16 × reflect skipped: too small", "[2] vgg16 × zero failed: boom"],
    }
    return Board(**(defaults | changes))


def test_a_board_shows_scores_spread_gaps_and_notes() -> None:
    text = printed(render.board(board()))
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["H", "zero", "0.91", "±0.05", "0.00"] in rows
    assert ["reflect", "skipped", "[1]", "–"] in rows
    assert ["V", "zero", "failed", "[2]", "–"] in rows
    assert text.startswith("spc on photos")
    assert text.index("higher is better") < text.index("[1] vgg16 × reflect skipped: too small")
    assert "[2] vgg16 × zero failed: boom" in text
    assert "random:0" in text


def test_the_best_is_bold() -> None:
    text = printed(render.board(board()), force_terminal=True, color_system="standard", no_color=False)
    for style, entry in (("1", "0.91 ±0.05"), ("31", "failed [2]"), ("33", "skipped [1]")):
        assert re.search(rf"\x1b\[{style}m *{re.escape(entry)}", text), entry
    assert not re.search(r"\x1b\[1m *0\.00", text)


def test_square_brackets_are_text_and_no_markup() -> None:
    odd = board(
        title="spc on [bold]photos[/bold]",
        headings=["[red]net", "b"],
        sections={"[link]": [("[/]", [Entry(), Entry()])]},
        notes=["[1] reason [/nothing]"],
    )
    text = printed(render.board(odd))
    for piece in ("[bold]photos[/bold]", "[red]net", "[link]", "[/]", "[1] reason [/nothing]"):
        assert piece in text


def test_a_plain_table_keeps_brackets_and_folds_rather_than_cuts() -> None:
    text = printed(render.plain(["name", "what"], [["[dim]x", "word " * 30]]), width=40)
    assert "[dim]x" in text
    assert text.count("word") == 30
    assert "…" not in text


def test_a_map_in_shades() -> None:
    text = printed(render.maps([("drawn", [[0.0, 0.25], [0.75, 1.0]])], coloured=False))
    assert "drawn" in text
    assert "0.00 (dark) to 1.00" in text
    assert "  ░░" in text
    assert "▓▓██" in text


def test_a_flat_map_is_drawn_in_the_middle() -> None:
    text = printed(render.maps([("flat", [[0.3, 0.3], [0.3, 0.3]])], coloured=False))
    assert text.count("▒▒▒▒") == 2


@pytest.mark.parametrize("side", [4, 5])
def test_a_map_in_colour_holds_two_rows_a_line(side: int) -> None:
    values = [[float(row)] * side for row in range(side)]
    text = printed(
        render.maps([("rows", values), ("again", values)], coloured=True),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    lines = [line for line in text.splitlines() if "▀" in line]
    assert len(lines) == (side + 1) // 2
    assert all(line.count("▀") == 2 * side for line in lines)
    assert "38;2;0;0;0" in lines[0]
    assert "38;2;255;255;255" in lines[-1] or "48;2;255;255;255" in lines[-1]


def test_progress_is_silent_off_a_terminal_and_when_quiet() -> None:
    for options, quiet in (({}, False), ({"force_terminal": True}, True)):
        stream = io.StringIO()
        console = Console(file=stream, **options)  # type: ignore[arg-type]
        with render.JobProgress(console, 1, 12, quiet=quiet) as progress:
            progress.started(plan().cells[0].job)
            progress.saw(plan().cells[0].job, 8)
            progress.finished(plan().cells[0].job, None)
        assert stream.getvalue() == ""


def test_progress_on_a_terminal_names_the_job_and_counts_images() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140, color_system=None)
    job = plan().cells[0].job
    with render.JobProgress(console, 2, 24, quiet=False) as progress:
        progress.started(job)
        progress.saw(plan().cells[0].job, 8)
        progress._progress.refresh()
        assert "job 1/2" in stream.getvalue()
        assert "net (imagenet:net@1), zero" in stream.getvalue()
        assert "8/24" in stream.getvalue()
        # A job that was skipped half-way counts as done.
        progress.finished(job, None)
        progress.started(job)
        progress._progress.refresh()
        assert "job 2/2" in stream.getvalue()
        assert "12/24" in stream.getvalue()


def test_progress_in_a_narrow_terminal_still_counts_and_tells_the_time_left() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    with render.JobProgress(console, 2, 24, quiet=False) as progress:
        progress.started(plan().cells[0].job)
        progress.saw(plan().cells[0].job, 8)
        progress._progress.refresh()
    line = stream.getvalue().splitlines()[-1]
    assert re.search(r"job 1/2 .* 8/24 images, left \S+ net", stream.getvalue())
    assert len(line) <= 80  # with what moves the cursor
