"""Small runs of the command line, and what tests do with their output."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable

from tests.conftest import Ran

Posbench = Callable[..., Ran]
Install = Callable[..., None]
Row = dict[str, str]

SIZES = ("--image-size", "64", "--train-count", "12", "--test-count", "6", "--precision", "fp32", "--device", "cpu")
SMALL = ("--images", "leaves", "--targets", "H,V", *SIZES)
RUN = ("run", "--backbones", "tiny", "--paddings", "zero,circular", *SMALL)


def flat(text: str) -> str:
    """Return a table's text without line breaks."""
    return " ".join(text.split())


def rows(text: str) -> list[Row]:
    return list(csv.DictReader(io.StringIO(text)))


def assert_message(ran: Ran, code: int, *pieces: str) -> None:
    """Assert one line on standard error that holds these pieces, an empty standard output, and this exit code."""
    assert ran.err.startswith("posbench: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert ran.out == ""
    assert ran.code == code
    for piece in pieces:
        assert piece in ran.err


def in_process(arguments: tuple[str, ...], check: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and then a statement, in a new Python process."""
    code = (
        "import sys\nfrom posbench.cli import main\n"
        f"sys.argv = ['posbench', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"{check}\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment, timeout=120
    )
