"""Tables in Markdown. What plugins and files say stands there as text: HTML and Markdown in it are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from posbench.report.boards import Board, Entry, entry_text


def text(words: str) -> str:
    """Words without HTML or Markdown of their own, such as an image that would be fetched."""
    return re.sub(r"([\\`*_\[\]!])", r"\\\1", escape(words, quote=False))


def _entry(one: Entry) -> str:
    words = text(entry_text(one))
    return f"**{words}**" if one.best else words


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, labels: int) -> list[str]:
    """The lines of a table of Markdown, whose first columns are labels and whose others are numbers, at the right."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    rule = ["---" if i < labels else "---:" for i in range(len(headings))]
    return [line(headings), line(rule), *map(line, rows)]


def of_boards(boards: Iterable[Board]) -> str:
    """Boards, the best of each column in bold."""
    lines = []
    for board in boards:
        rows = [
            [text(section), text(label), *map(_entry, entries)]
            for section, found in board.sections.items()
            for label, entries in found
        ]
        headings = map(text, (board.section, board.by, *board.headings))
        lines += [f"**{text(board.title)}**", "", *table([*headings], rows, labels=2)]
        lines += ["", *map(text, (board.caption, *board.notes)), ""]
    return "\n".join(lines)
