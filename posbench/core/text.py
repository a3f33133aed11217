"""What a terminal can show: whether it has Unicode, and what stands for it in ASCII."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

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
