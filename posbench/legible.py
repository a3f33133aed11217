"""What a terminal can show: whether it has Unicode, what stands for it in ASCII, and where words may be broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from rich.cells import cell_len, chop_cells

#: Forms in ASCII of what posbench itself writes; in anything else a character becomes its escape, such as `\xe9`.
_FORMS = str.maketrans(
    {
        "±": "+-",
        "≈": "~",
        "–": "-",
        "—": "-",
        "−": "-",
        "×": "x",
        "·": "*",
        "…": "...",
        "→": "->",
        "√": "sqrt ",
        "≤": "<=",
        "≥": ">=",
        "Δ": "delta",
        "λ": "lambda",
        "½": "1/2",
        "²": "^2",
        "⁻": "^-",
        "’": "'",
        "“": '"',
        "”": '"',
        "█": "#",
        "▉": "#",
        "▊": "#",
        "▋": "#",
        "▌": "#",
        "▍": "",
        "▎": "",
        "▏": "",
    }
)
#: The characters that a long word may be broken after.
_SOFT = frozenset("/:@,;=_-|")
_NO_UNICODE = ("C", "POSIX")


def has_unicode(encoding: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream of this encoding may be sent Unicode, and the locale does not ask for ASCII.

    Python sets `LC_CTYPE` itself where the locale is `C`; that is not what the user asked for.
    """
    coerced = sys.flags.utf8_mode and environment.get("LC_CTYPE", "").upper() in ("C.UTF-8", "C.UTF8", "UTF-8")
    names = ("LC_ALL", "LANG") if coerced else ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    return encoding.lower().startswith("utf") and locale not in _NO_UNICODE


def ascii_form(text: str) -> str:
    """The text in ASCII: signs by what is customary for them, other characters by their escapes."""
    text = printable(text)
    return text if text.isascii() else text.translate(_FORMS).encode("ascii", "backslashreplace").decode("ascii")


def replaced(text: str, instead: Callable[[str], str], but: str = "") -> str:
    """The text with something else for each character that a terminal would obey or cannot show, but for some."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in but else instead(one) for one in text)


def printable(text: str) -> str:
    """The text with all that a terminal would obey, such as an escape sequence, as escapes; line feeds stay."""

    def escaped(one: str) -> str:
        return " " if one == "\t" else one.encode("unicode_escape", "surrogatepass").decode("ascii")

    return replaced(text, escaped, but="\n")


def name(text: str) -> str:
    """The name of a file on one line, as any table can hold it: with escapes for what is not printable, or no text."""
    readable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return printable(readable).replace("\n", "\\n")


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
