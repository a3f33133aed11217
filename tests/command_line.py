"""Options and checks that many tests of the command line share."""

from __future__ import annotations

import csv
import io

from tests.conftest import Ran

#: Few small crops, computed alike on every machine.
SIZES = ("--image-size", "64", "--train-count", "12", "--test-count", "6", "--precision", "fp32", "--device", "cpu")
SMALL = ("--images", "leaves", "--targets", "H,V", *SIZES)
#: A run of two jobs on the network `tiny`.
RUN = ("run", "--backbones", "tiny", "--paddings", "zero,circular", *SMALL)


def flat(text: str) -> str:
    """Return a table's text on one line, runs of white space as one blank."""
    return " ".join(text.split())


def rows(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV by column name."""
    return list(csv.DictReader(io.StringIO(text)))


def assert_message(ran: Ran, code: int, *pieces: str) -> None:
    """Assert this exit code, nothing on standard output, and one line on standard error that holds all pieces."""
    assert ran.err.startswith("posbench: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert ran.out == ""
    assert ran.code == code
    for piece in pieces:
        assert piece in ran.err
