"""Text that every terminal can show: Unicode support, ASCII replacements and escapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

#: ASCII replacements of the characters that posbench itself writes; any other becomes its escape, such as `\xe9`.
_ASCII = str.maketrans(
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
    """Return True if a stream of this encoding takes Unicode and the user's locale is not an ASCII one.

    In the locale `C`, Python itself sets `LC_CTYPE` to UTF-8; such a value is ignored, as the user did not set it.
    """
    coerced = sys.flags.utf8_mode and environment.get("LC_CTYPE", "").upper() in ("C.UTF-8", "C.UTF8", "UTF-8")
    names = ("LC_ALL", "LANG") if coerced else ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    return encoding.lower().startswith("utf") and locale not in _NO_UNICODE


def ascii_form(text: str) -> str:
    """Return the text in ASCII: common signs as their usual replacement, other characters as escapes."""
    text = printable(text)
    return text if text.isascii() else text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def replace_unprintable(text: str, replacement: Callable[[str], str], keep: str = "") -> str:
    """Replace each unprintable character, such as a control code, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else replacement(char) for char in text)


def printable(text: str) -> str:
    """Return the text with control characters as escapes and tabs as spaces; line feeds stay."""

    def escape(char: str) -> str:
        return " " if char == "\t" else char.encode("unicode_escape", "surrogatepass").decode("ascii")

    return replace_unprintable(text, escape, keep="\n")


def printable_filename(name: str) -> str:
    """Return a file name on one line, with escapes for unprintable characters and for bytes that are not UTF-8."""
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    return printable(decoded).replace("\n", "\\n")
