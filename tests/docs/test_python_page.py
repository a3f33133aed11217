"""docs/python.md: every example carried out, one after the other, and what it shows held against what it prints."""

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
#: How far a printed score may be from one that another processor gives.
ROUNDING = 0.02


def printed(code: str, namespace: dict[str, object]) -> str:
    """What an example prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, str(PAGE), "exec"), namespace)  # noqa: S102  our own page
    return said.getvalue()


def words(text: str) -> list[str]:
    """All but the scores and the hashes, which are those of random numbers."""
    return NUMBER.sub("#", HASH.sub("@", text)).split()


def numbers(text: str) -> list[float]:
    return [float(number.replace("±", "")) for number in NUMBER.findall(text)]


def test_examples_print_what_the_page_shows(posbench: Callable[..., Ran]) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(examples) == 7
    namespace: dict[str, object] = {}
    for code, shown in examples:
        said = printed(code, namespace)
        assert words(said) == words(shown), code
        assert numbers(said) == pytest.approx(numbers(shown), abs=ROUNDING), code
        # What is printed is shown.
        assert bool(said) == ("print(" in code)
