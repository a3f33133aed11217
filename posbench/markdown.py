"""Tables in Markdown. What plugins and files say stands there as text: HTML in it is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from posbench.boards import Board, entry_text


def text(words: str) -> str:
    """Words without HTML of their own."""
    return escape(words, quote=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, labels: int) -> list[str]:
    """The lines of a table, whose first columns are labels and whose others are numbers, at the right."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(text(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    rule = ["---" if i < labels else "---:" for i in range(len(headings))]
    return [line(headings), line(rule), *map(line, rows)]


def of_boards(boards: Iterable[Board]) -> str:
    """Boards, the best of each column in bold."""
    lines = []
    for board in boards:
        rows = [
            [section, label, *(f"**{entry_text(one)}**" if one.best else entry_text(one) for one in entries)]
            for section, found in board.sections.items()
            for label, entries in found
        ]
        lines += [f"**{text(board.title)}**", "", *table([board.section, board.by, *board.headings], rows, labels=2)]
        lines += ["", *map(text, (board.caption, *board.notes)), ""]
    return "\n".join(lines)
