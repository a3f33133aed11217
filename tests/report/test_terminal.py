"""Tables and pictures as text."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from posbench.report import terminal
from posbench.report.boards import Board, Entry, Reach


def printed(renderable: Any, width: int = 100, **options: Any) -> str:
    """Return what a console of this width prints."""
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(renderable)
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
    text = printed(terminal.board(board()))
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["H", "zero", "0.91", "±0.05", "0.00"] in rows
    assert ["reflect", "skipped", "[1]", "–"] in rows
    assert ["V", "zero", "failed", "[2]", "–"] in rows
    assert text.startswith("spc on photos")
    assert text.index("higher is better") < text.index("[1] vgg16 × reflect skipped: too small")
    assert "[2] vgg16 × zero failed: boom" in text
    assert "random:0" in text


def test_a_reach_is_a_bar_of_half_the_image_at_most() -> None:
    distances = [Reach("H", "net, none", "zero", "photos", pixels, 112) for pixels in (112, 57, 0)]
    lines = printed(terminal.reaches(distances)).splitlines()
    assert [line.count("█") for line in lines[2:]] == [28, 14, 0]  # 57 px are 14.25 characters of 28
    assert [line.count("▎") for line in lines[2:]] == [0, 1, 0]
    assert lines[2].split()[:5] == ["H", "net,", "none", "zero", "photos"]
    assert lines[3].split()[:3] == ["zero", "photos", "57"]


def test_the_best_is_bold() -> None:
    text = printed(terminal.board(board()), force_terminal=True, color_system="standard", no_color=False)
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
    text = printed(terminal.board(odd))
    for piece in ("[bold]photos[/bold]", "[red]net", "[link]", "[/]", "[1] reason [/nothing]"):
        assert piece in text


def test_a_plain_table_keeps_brackets_and_folds_rather_than_cuts() -> None:
    text = printed(terminal.plain(["name", "what"], [["[dim]x", "word " * 30]]), width=40)
    assert "[dim]x" in text
    assert text.count("word") == 30
    assert "…" not in text
