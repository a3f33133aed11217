"""Where a text is broken into lines: at spaces, after some signs, and never inside a number."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells

#: The characters that a long word may be broken after.
_SOFT = frozenset("/:@,;=_-|")


def wrap(text: str, width: int) -> list[str]:
    """The lines of a text, none wider than `width` characters (at least 1; some letters of Asia take two).

    Lines are broken at spaces; a word that has no room on a line of its own after `/ : @ , ; = _ - |`, but not inside
    a number or a date; and where even that does not do, at the width.
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
                head, line = _broken(line, width)
                lines.append(head)
        lines.append(line)
    return lines


def _broken(line: str, width: int) -> tuple[str, str]:
    """A line of one word, broken at the last place that the width allows."""
    at = ""
    for piece in pieces(line):
        if cell_len(at + piece) > width:
            break
        at += piece
    at = at or chop_cells(line, width)[0] or line[0]
    return at, line[len(at) :]


def pieces(text: str) -> list[str]:
    """What a text may be broken into without cutting a word or a number, in order."""
    found = []
    for word in text.split():
        start = 0
        if not _is_number(word):
            for i in range(2, len(word)):
                before, mark, after = word[i - 2], word[i - 1], word[i]
                if mark in _SOFT and before.isalnum() and not (before.isdigit() and after.isdigit()):
                    found.append(word[start:i])
                    start = i
        found.append(word[start:])
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
