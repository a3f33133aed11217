"""The README's output, configuration and commands, compared with real runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Ran

README = Path(__file__).parents[2] / "README.md"
NUMBER = re.compile(r"-?\d+\.\d\d")


def fenced(language: str) -> list[str]:
    """Return the code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.long
def test_the_quoted_table_is_what_a_bare_run_prints(
    posbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    # `auto` takes bfloat16 where the processor has it, which changes the second digit of scores.
    printed = posbench("run", "--precision", "fp32")
    assert printed.code == 0, printed.err
    # The marks of significance may depend on the last bits, too.
    quoted, actual = (
        [line.replace("≈", " ").rstrip() for line in text.strip().splitlines()]
        for text in (fenced("text")[0], printed.out)
    )
    assert len(quoted) == len(actual)
    for ours, theirs in zip(quoted, actual, strict=True):
        assert NUMBER.sub("#", ours).split() == NUMBER.sub("#", theirs).split()
        # Convolutions differ between processors in the last bits, so nearly equal scores may change places.
        assert [float(n) for n in NUMBER.findall(theirs)] == pytest.approx(
            [float(n) for n in NUMBER.findall(ours)], abs=0.02
        )


def test_the_configuration_shown_is_accepted(posbench: Callable[..., Ran]) -> None:
    Path("experiment.yaml").write_text(fenced("yaml")[0], encoding="utf-8")
    answer = posbench("run", "experiment.yaml", "--dry-run")
    assert answer.code == 0, answer.err
    assert "8 jobs" in answer.out  # three paddings and the control, on two sources


def test_the_papers_tables_are_reproduced_by_the_commands_shown(
    posbench: Callable[..., Ran], tiny: str, tmp_path: Path
) -> None:
    """Run each command on a tiny network and few small crops."""
    for i, name in enumerate(("DUTS-TR-Image", "PASCAL-S")):
        Path(name).mkdir()
        for j in range(3):
            pixels = np.random.default_rng([i, j]).integers(0, 256, (120, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name) / f"{j}.png")
    small = ["--backbones", f"{tiny},none", "--image-size", "96", "--train-count", "8", "--test-count", "4"]
    shown = [shlex.split(line) for line in fenced("text")[2].splitlines()]
    assert len(shown) == 9
    for _, *command in shown:
        if ">" in command:
            *command, _, file = command
            printed = posbench(*command)
            Path(file).write_text(printed.out, encoding="utf-8")
        else:
            printed = posbench(*command, *(small if command[0] == "run" else []))
            assert "measured beside islam2020-table" in printed.out, printed.err
            assert "none" in printed.out
        assert printed.code == 0, printed.err
