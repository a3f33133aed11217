"""The tutorial: its commands print the output that it shows."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ran
from tests.docs.test_commands import install_source

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?e-\d+|-?\d+\.\d+")
OMITTED = "…"


def typed() -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command of the page as words, with the lines shown below it."""
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield shlex.split(command), shown


def pieces(shown: list[str]) -> list[list[str]]:
    """Split shown lines at omissions."""
    parts: list[list[str]] = [[]]
    for line in shown:
        parts.append([]) if line == OMITTED else parts[-1].append(line)
    return [part for part in parts if part]


def words(line: str) -> list[str]:
    return NUMBER.sub("#", line).split()


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Return True if all words are equal, and all numbers up to differences between processors."""
    if [words(line) for line in shown] != [words(line) for line in printed]:
        return False
    ours, theirs = ([float(n) for line in lines for n in NUMBER.findall(line)] for lines in (shown, printed))
    return ours == pytest.approx(theirs, abs=0.02)


@pytest.mark.long
def test_it_is_as_it_says(posbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.delitem(sys.modules, "my_padding", raising=False)
    commands = list(typed())
    assert len(commands) == 9
    for (program, *arguments), shown in commands:
        if program == "pip":
            install_source(arguments[-1], tmp_path / "installed")
            continue
        ran = posbench(*arguments)
        assert ran.code == 0, ran.err
        printed = ran.out.splitlines()
        start = 0
        for piece in pieces(shown):
            places = [
                at for at in range(start, len(printed) - len(piece) + 1) if agrees(piece, printed[at : at + len(piece)])
            ]
            assert places, "\n".join([f"not printed by {arguments}:", *piece, "but:", *printed])
            start = places[0] + len(piece)
