"""Boards as HTML tables for notebooks: everything that they say is escaped, and nothing in them runs."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from posbench.boards import Board, Entry, entry_text


def board(scores: Board) -> str:
    """One board as a table, bold the best of a column within its section, as in the terminal."""
    headings = [scores.section, scores.by, *scores.headings]
    lines = [f"<tr>{''.join(f'<th>{_text(heading)}</th>' for heading in headings)}</tr>"]
    for section, entries in scores.sections.items():
        for i, (label, cells) in enumerate(entries):
            named = f"<th>{_text(section) if i == 0 else ''}</th><th>{_text(label)}</th>"
            lines.append(f"<tr>{named}{''.join(map(_cell, cells))}</tr>")
    below = "<br>".join(map(_text, [scores.caption, *scores.notes]))
    table = "\n".join(lines)
    return f"<table><caption>{_text(scores.title)}</caption>\n{table}\n</table>\n<p><small>{below}</small></p>"


def remarks(texts: Iterable[str]) -> str:
    """Remarks as paragraphs."""
    return "".join(f"<p>{_text(text)}</p>" for text in texts)


def _cell(entry: Entry) -> str:
    text = _text(entry_text(entry))
    return f'<td style="text-align: right">{f"<b>{text}</b>" if entry.best else text}</td>'


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>")
