"""Boards as HTML tables for notebooks: everything that they say is escaped, and nothing in them runs."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from posbench.report.boards import Board, Entry, entry_text


def board(scores: Board) -> str:
    """One board as a table, bold the best of a column within its section, as in the terminal.

    A report's script sorts it: each section is a body, and each line names its own, wherever it comes to stand.
    """
    # The control's weights are called as it is: once is enough.
    columns = ["\n".join(dict.fromkeys(one.split("\n"))) for one in scores.headings]
    headings = "".join(f'<th scope="col">{_text(one)}</th>' for one in (scores.section, scores.by, *columns))
    lines = [f"<caption>{_text(scores.title)}</caption>", f"<thead><tr>{headings}</tr></thead>"]
    for section, entries in scores.sections.items():
        named = [(f"<td>{_text(section)}</td><td>{_text(label)}</td>", cells) for label, cells in entries]
        lines += ["<tbody>", *(f"<tr>{names}{''.join(map(_cell, cells))}</tr>" for names, cells in named), "</tbody>"]
    table = "\n".join(lines)
    below = "<br>".join(map(_text, [scores.caption, *scores.notes]))
    return f'<div class="scroll"><table class="sortable">{table}\n</table></div>\n<p><small>{below}</small></p>'


def remarks(texts: Iterable[str]) -> str:
    """Remarks as paragraphs."""
    return "".join(f"<p>{_text(text)}</p>" for text in texts)


def _cell(entry: Entry) -> str:
    text = _text(entry_text(entry))
    if entry.text:
        return f"<td>{text}</td>"
    kind, value = "number best" if entry.best else "number", "" if entry.value is None else entry.value
    shown = f"<b>{text}</b>" if entry.best else text
    return f'<td class="{kind}" data-value="{value}" style="text-align: right">{shown}</td>'


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>")
