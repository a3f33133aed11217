"""What can go wrong through no fault of posbench, each with the exit code that the command line answers with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from posbench.core.text import replaced


class PosbenchError(Exception):
    """A problem that one plain line explains; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(PosbenchError):
    """Wrong usage or input: the user can fix the command, the configuration or the files."""

    exit_code = 2


class ComponentError(PosbenchError):
    """A component raised, or broke what its record promises; the message names it and the distribution it is from.

    In a job, this is recorded as what became of it; where a plan is made, it is the user's to leave the component out.

    Attributes:
        attributed: the message names the component at fault; calls of other components further out add nothing to it.
    """

    exit_code = 2
    attributed = False


class MissingError(PosbenchError):
    """Weights, a package or a device that the request needs are not on this machine."""

    exit_code = 4


class Interrupted(PosbenchError):  # noqa: N818  it is no error of anyone's
    """The user stopped a run; what had finished is stored."""

    exit_code = 130


class Inapplicable(PosbenchError):  # noqa: N818  nothing went wrong
    """A combination that cannot exist, such as reflection of a map narrower than the padding.

    Raise it from a component to have the job recorded as `skipped`, with this message as its reason.
    """


LONGEST = 300


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and not without end; its type if it says nothing."""
    try:
        said = str(error)
    except BaseException:  # of a plugin's own kind, which cannot say what it is
        said = ""
    said = replaced(re.sub(r"\x1b\[[\d;]*m", "", said), lambda _: " ")
    text = " ".join(said.split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known names, or nothing if none is near."""
    folded = {candidate.casefold(): candidate for candidate in known}
    near = [folded[match] for match in get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    return f": did you mean {' or '.join(near)}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a component's name that nothing has, with the nearest known names."""
    plural = kind if kind.endswith("s") else kind + "s"
    return UsageError(
        f"unknown {kind} {name!r}{nearest(name, known) or f': `posbench list {plural}` shows the known ones'}"
    )
