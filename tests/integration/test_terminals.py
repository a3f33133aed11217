"""Output of every command in terminals of any width, without colour, without Unicode, and piped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.cells import cell_len

from posbench.cli.commands import COMMANDS
from posbench.core.text import ascii_form
from posbench.report.wrapping import pieces
from tests.command_line import SIZES, assert_message, rows
from tests.conftest import TINY, Ran

Posbench = Callable[..., Ran]
RUN = (
    *("run", "--backbones", "tiny,none", "--weights", "random", "--paddings", "zero,circular,reflect", "--quiet"),
    *("--images", "leaves", "--targets", "H,V", "--metrics", "spc,mae,modes", "--controls", "permuted,none"),
    *SIZES,
)
#: A score with its interval, which no line may break.
SCORE = re.compile(r"-?\d+\.\d\d+ ±\d+\.\d\d+(?: ≈)?")
#: Replaces the lines of tables by blanks.
LINES = str.maketrans(dict.fromkeys("┏━┳┓┃┡╇┩│└┴┘├┼┤─|+", " "))


def commands(cell: str) -> list[tuple[str, ...]]:
    """Every command, with what shows most of it."""
    helps = [(name, "--help") for name in COMMANDS]
    return [
        *helps,
        ("--help",),
        RUN,
        (*RUN, "--dry-run"),
        ("leaderboard",),
        ("leaderboard", "--by", "backbone", "--metric", "mae", "--reach"),
        ("leaderboard", "--published", "islam2020-table1"),
        ("show", cell),
        ("measures", "--pictures"),
        ("compare", "padding=zero", "padding=circular"),
        ("publish", "published"),
        ("doctor",),
        ("list", "paddings"),
        ("list", "targets"),
        ("list", "controls"),
        ("plugins",),
        ("audit", "tiny"),
    ]


def count_pieces(text: str) -> Counter[str]:
    """Count the pieces into which the columns of tables may break a text."""
    return Counter(pieces(text.translate(LINES)))


@pytest.fixture
def cell(posbench: Posbench, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Fill a store with every kind of result; return the start of the id of one cell."""
    install("posbench-tiny", TINY)
    ran = posbench(*RUN, "--csv", "-")
    assert ran.code == 0, ran.err
    # Others write to the disk, too, and the hub may answer now and not then.
    monkeypatch.setattr("posbench.cli.diagnose.hub_answers", lambda: False)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**33))
    return rows(ran.out)[0]["cell_id"][:12]


@pytest.mark.long
def test_no_command_prints_lines_too_wide_or_loses_a_word_or_a_number(
    posbench: Posbench, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in commands(cell):
        monkeypatch.setenv("COLUMNS", "5000")
        whole = posbench(*command)
        assert whole.code == 0, (command, whole.err)
        scores = Counter(SCORE.findall(whole.out))
        # A hash is longer than a column of the narrowest terminal, and may be broken.
        words = {word for word in count_pieces(whole.out) if cell_len(word) <= 40 and not set(word) & set("░▒▓█'")}
        for width in (60, 80, 120, 200):
            monkeypatch.setenv("COLUMNS", str(width))
            shown = posbench(*command)
            assert shown.code == 0, (command, shown.err)
            assert max(map(cell_len, shown.out.splitlines())) <= width, (command, width)
            lost = scores - Counter(SCORE.findall(shown.out))
            assert not lost, (command, width, lost)
            text = shown.out.translate(LINES)
            assert [word for word in words if word not in text] == [], (command, width)
            assert "…" not in shown.out or "…" in whole.out


def test_what_programs_read_is_whole_and_the_same_in_any_terminal(
    posbench: Posbench, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = [("leaderboard", *form) for form in (("--csv", "-"), ("--markdown", "-"), ("--json",))]
    for command in [*forms, ("measures", "--csv", "-"), ("compare", "padding=zero", "padding=circular", "--json")]:
        shown = set()
        for columns, locale in (("60", "C"), ("60", "C.UTF-8"), ("200", "C.UTF-8")):
            monkeypatch.setenv("COLUMNS", columns)
            monkeypatch.setenv("LC_ALL", locale)
            ran = posbench(*command)
            assert ran.code == 0, ran.err
            shown.add(ran.out)
        assert len(shown) == 1, command
    markdown = posbench("leaderboard", "--markdown", "-").out
    # Tables of scores, controls, verdicts, and networks as a whole.
    assert [line for line in markdown.splitlines() if line.startswith("**")] == [
        "**spc on leaves**",
        "**spc on leaves, and its controls: tiny, untrained, random:0**",
        "**verdicts**",
        "**networks as a whole on leaves**",
    ]
    assert cell in posbench("leaderboard", "--csv", "-").out


def test_a_picture_is_written_where_asked_and_named_where_it_cannot_be(
    posbench: Posbench, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = posbench("show", cell, "--png", "map.png")
    assert ran.code == 0, ran.err
    with Image.open("map.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 400
    assert_message(posbench("show", cell, "--png", "no-such-folder/map.png"), 2, "cannot be written")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_message(posbench("show", cell, "--png", "other.png"), 4, "pip install 'position-bench[report]'")
    assert not Path("other.png").exists()


@pytest.mark.long
def test_in_ascii_every_command_says_the_same(posbench: Posbench, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(cell):
        monkeypatch.setenv("COLUMNS", "5000")
        monkeypatch.delenv("LC_ALL", raising=False)
        whole = posbench(*command)
        monkeypatch.setenv("LC_ALL", "C")
        for width in (60, 120):
            monkeypatch.setenv("COLUMNS", str(width))
            shown = posbench(*command)
            assert shown.code == 0, (command, shown.err)
            assert shown.out.isascii(), command
            assert max(map(len, shown.out.splitlines())) <= width, (command, width)
            for score in SCORE.findall(whole.out):
                assert ascii_form(score) in shown.out, (command, width, score)


def in_process(arguments: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a new process with piped output, without this process's variables about terminals."""
    terminal = ("COLUMNS", "LANG", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONIOENCODING", "PYTHONUTF8")
    kept = {key: value for key, value in os.environ.items() if key not in terminal and not key.startswith("LC_")}
    site = str(Path("../site").resolve())
    kept["PYTHONPATH"] = os.pathsep.join([site, *filter(None, sys.path)])
    code = "import sys; from posbench.cli import main; sys.argv[0] = 'posbench'; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, env=kept | environment, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"Traceback" not in ran.stderr
    return ran


@pytest.mark.long
def test_piped_lines_stay_whole(cell: str) -> None:
    text = in_process(("show", cell), LANG="C.UTF-8").stdout.decode()
    assert "\x1b" not in text
    [line] = [line for line in text.splitlines() if line.startswith("cell_id")]
    assert re.search("[0-9a-f]{64}", line)
    board = in_process(("leaderboard",), LANG="C.UTF-8").stdout.decode()
    assert board.count("┏") == 4  # tables of scores, controls, verdicts, and networks as a whole; none is split


@pytest.mark.long
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "C", "FORCE_COLOR": "1"},
    ],
)
def test_without_unicode_output_is_ascii(cell: str, environment: dict[str, str]) -> None:
    text = in_process(("show", cell), COLUMNS="80", **environment).stdout
    assert text.isascii()
    assert b"\\u" not in text  # every character has an ASCII form
    assert b"@@" in text


@pytest.mark.long
def test_colour_is_used_where_it_is_and_not_where_it_is_unwanted(cell: str) -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "100", "LANG": "C.UTF-8"}
    coloured = in_process(("show", cell), **terminal).stdout.decode()
    assert "▀" in coloured
    assert "\x1b[38;5;" in coloured
    without = in_process(("show", cell), **terminal, NO_COLOR="1").stdout.decode()
    assert "▀" not in without
    assert "▓▓" in without
    assert not re.search(r"\x1b\[[\d;]*(?:3[0-7]|38|48)[;m]", without)
