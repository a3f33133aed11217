"""docs/python.md: its examples, run in order, print the output that the page shows."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
HASH = re.compile(r"@[0-9a-f]{8}")
NUMBER = re.compile(r"[-±]?\d+\.\d+")
#: Greatest difference of a score between processors.
ROUNDING = 0.02


def printed(code: str, namespace: dict[str, object]) -> str:
    """Run an example and return its output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, str(PAGE), "exec"), namespace)  # noqa: S102  our own page
    return output.getvalue()


def words(text: str) -> list[str]:
    """Return the words of a text, scores and hashes replaced: both follow from random numbers."""
    return NUMBER.sub("#", HASH.sub("@", text)).split()


def numbers(text: str) -> list[float]:
    return [float(number.replace("±", "")) for number in NUMBER.findall(text)]


def test_examples_print_what_the_page_shows(posbench: Callable[..., Ran]) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(examples) == 7
    namespace: dict[str, object] = {}
    for code, shown in examples:
        output = printed(code, namespace)
        assert words(output) == words(shown), code
        assert numbers(output) == pytest.approx(numbers(shown), abs=ROUNDING), code
        # The page shows all output.
        assert bool(output) == ("print(" in code)
