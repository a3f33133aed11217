"""Every command that the README and the docs show, carried out: on a tiny network, few and small crops."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posbench.store import Store
from tests.conftest import Ran
from tests.test_hookspecs import HOOKS, example

TOP = Path(__file__).parents[1]
PAGES = sorted(
    [TOP / "README.md", *TOP.glob("docs/*.md"), *TOP.glob("plugins/*/README.md"), *TOP.glob("benchmarks/**/*.md")]
)
FENCED = re.compile(r"^```(?:sh|text|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(posbench [a-z][^`]*)`")
FOLDERS = ("path/to/folder", "DUTS-TR-Image", "PASCAL-S")
SMALL = ("--image-size", "96", "--train-count", "8", "--test-count", "4")


def shown(page: Path) -> Iterator[list[str]]:
    """The commands in a page's blocks, as words; what stands beside one, or after #, explains it."""
    for block in FENCED.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.removeprefix("$ ").startswith(("posbench ", "pip ")):
                yield shlex.split(re.split(r"\s{3,}", line.removeprefix("$ "))[0], comments=True)


def small(command: list[str], network: str) -> list[str]:
    """The same command for a network of three convolutions, and little to see."""
    if command[0] == "audit":
        return [*command[:1], network, *command[2:]]
    if command[0] != "run":
        return command
    if "--backbones" in command:
        named = command[command.index("--backbones") + 1].split(",")
        command[command.index("--backbones") + 1] = ",".join([network, *(["none"] if "none" in named else [])])
    else:
        command = [*command, "--backbones", f"{network},none"]
    return [*command, *SMALL]


def installed(source: str, site: Path) -> None:
    """A distribution named in a page, installed beside those that are there."""
    path = TOP / source.split("[")[0]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(path if path.is_dir() else source)], check=True)
    importlib.invalidate_caches()


@pytest.fixture
def folder(posbench: Callable[..., Ran]) -> Path:
    """The folder that commands are run in, with what they expect there."""
    for i, name in enumerate(FOLDERS):
        Path(name).mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng([i, j]).integers(0, 256, (130, 130, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name) / f"{j}.png")
    [example] = re.findall(r"^```yaml\n(.*?)^```$", (TOP / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    Path("experiment.yaml").write_text(example, encoding="utf-8")
    return Path.cwd()


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if any(shown(p))], ids=lambda p: str(p.relative_to(TOP)))
@pytest.mark.usefixtures("folder")
def test_every_command_shown_does_what_it_says(
    page: Path, posbench: Callable[..., Ran], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    # Another page may have made and imported a plugin of this name.
    monkeypatch.delitem(sys.modules, "my_padding", raising=False)
    for program, *words in shown(page):
        if program == "pip":
            installed(words[-1], tmp_path / "installed")
            continue
        command = small(words, tiny)
        if command[0] == "show":
            with Store(Path("posbench.db"), must_exist=True) as store:
                command[1] = next(iter(store.records())).cell_id
        if ">" in command:
            *command, _, file = command
            Path(file).write_text(posbench(*command).out, encoding="utf-8")
            continue
        ran = posbench(*command)
        assert ran.code == 0, (command, ran.err)
        assert ran.out, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_command_named_has_the_options_named(page: Path, posbench: Callable[..., Ran]) -> None:
    for named in {re.sub(r"\s+", " ", one) for one in INLINE.findall(page.read_text(encoding="utf-8"))}:
        _, command, *rest = named.split()
        ran = posbench(command, "--help")
        assert ran.code == 0, named
        for option in re.findall(r"--[a-z-]+", " ".join(rest)):
            assert option in ran.out, named


def test_the_guide_shows_the_examples_that_the_hooks_have() -> None:
    """Those in the hooks' docstrings are put to work by tests/test_hookspecs.py."""
    guide = (TOP / "docs" / "plugins.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert [block.split() for block in sorted(shown)] == [example(hook).split() for hook in sorted(HOOKS, key=example)]
