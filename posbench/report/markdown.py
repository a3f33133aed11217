"""Tables in Markdown; HTML and Markdown in texts of plugins and files are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from posbench.report.boards import Board, Entry, entry_text


def text(words: str) -> str:
    """Escape HTML and Markdown in a text, such as an image that a reader's browser would fetch."""
    return re.sub(r"([\\`*_\[\]!])", r"\\\1", escape(words, quote=False))


def _entry(entry: Entry) -> str:
    words = text(entry_text(entry))
    return f"**{words}**" if entry.best else words


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, labels: int) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        labels: the number of first columns that are labels; the others are numbers, aligned right.
    """

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    rule = ["---" if i < labels else "---:" for i in range(len(headings))]
    return [line(headings), line(rule), *map(line, rows)]


def of_boards(boards: Iterable[Board]) -> str:
    """Return boards as Markdown, the best of each column in bold."""
    lines = []
    for board in boards:
        rows = [
            [text(section), text(label), *map(_entry, entries)]
            for section, section_lines in board.sections.items()
            for label, entries in section_lines
        ]
        headings = map(text, (board.section, board.by, *board.headings))
        lines += [f"**{text(board.title)}**", "", *table([*headings], rows, labels=2)]
        lines += ["", *map(text, (board.caption, *board.notes)), ""]
    return "\n".join(lines)
