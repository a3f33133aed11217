"""Line breaks in text: at spaces and after some signs, never inside a number."""

from __future__ import annotations

import re

from rich.cells import cell_len, chop_cells

#: The places in a word where a line may break: after a sign that follows a letter or digit, but not between digits.
_BREAK = re.compile(r"(?<=[^\W_][/:@,;=_|-])(?!$)(?:(?<!\d.)|(?!\d))")


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text, none wider than `width` characters (at least 1; some Asian letters take two).

    Lines break at spaces. A word wider than a line breaks after `/ : @ , ; = _ - |`, but not inside a number or a date;
    a piece that is still wider breaks at the width.
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if not line:
                line = word
            elif cell_len(line) + 1 + cell_len(word) <= width:
                line += " " + word
            else:
                lines.append(line)
                line = word
            while cell_len(line) > width:
                head = _head(line, width)
                lines.append(head)
                line = line[len(head) :]
        lines.append(line)
    return lines


def _head(word: str, width: int) -> str:
    """Return the longest beginning of a word that fits the width and ends where the word may break."""
    head = ""
    for piece in pieces(word):
        if cell_len(head + piece) > width:
            break
        head += piece
    return head or chop_cells(word, width)[0] or word[0]


def pieces(text: str) -> list[str]:
    """Return the pieces of a text between places where a line may break, in order."""
    return [piece for word in text.split() for piece in ([word] if _is_number(word) else _BREAK.split(word))]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
