"""The exceptions of posbench, each with its exit code, and their one-line messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from posbench.core.text import replace_unprintable


class PosbenchError(Exception):
    """A problem that one line explains; the command line prints that line without a traceback."""

    exit_code = 1


class UsageError(PosbenchError):
    """Wrong usage or input, which the user can fix in the command, the configuration or the files."""

    exit_code = 2


class ComponentError(PosbenchError):
    """An error in a component, or a broken promise of its record; the message names it and its distribution.

    In a job, this is recorded as what became of it; where a plan is made, it is the user's to leave the component out.

    Attributes:
        attributed: the message names the component at fault; calls of other components further out add nothing to it.
    """

    exit_code = 2
    attributed = False


class MissingError(PosbenchError):
    """Weights, a package or a device that the request needs and this machine does not have."""

    exit_code = 4


class Interrupted(PosbenchError):  # noqa: N818  not an error
    """A run that the user stopped; finished jobs are stored."""

    exit_code = 130


class Inapplicable(PosbenchError):  # noqa: N818  not an error
    """A combination that cannot be computed, such as reflection padding wider than the map.

    A component raises it to have the job stored as `skipped`, with the message as the reason.
    """


#: The most characters of a one-line message.
MAX_LENGTH = 300


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line of at most `MAX_LENGTH` characters; its type if it has no message."""
    try:
        message = str(error)
    except BaseException:  # a plugin's exception class may have a broken __str__
        message = ""
    message = replace_unprintable(re.sub(r"\x1b\[[\d;]*m", "", message), lambda _: " ")
    text = " ".join(message.split()) or type(error).__name__
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean A or B?` with the nearest known names; an empty string if no name is near."""
    folded = {candidate.casefold(): candidate for candidate in known}
    near = [folded[match] for match in get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    return f": did you mean {' or '.join(near)}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown component name, with the nearest known names."""
    plural = kind if kind.endswith("s") else kind + "s"
    return UsageError(
        f"unknown {kind} {name!r}{nearest(name, known) or f': `posbench list {plural}` shows the known ones'}"
    )
