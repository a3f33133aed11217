"""Run every command that the README and the docs show, in a block or within a line.

Each runs as printed, with the options that `SMALL` appends: the last of two equal options counts, so networks are tiny
and crops are few and small. Only the README's two shell blocks are run elsewhere: `.ci/run` runs them unchanged.
"""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from posbench.cli.app import app
from posbench.store.store import Store
from tests.conftest import Ran

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
PAGES = sorted([README, *TOP.glob("docs/*.md"), *TOP.glob("plugins/*/README.md"), *TOP.glob("benchmarks/**/*.md")])
#: Options appended to commands, by how the command begins.
SMALL = {
    "posbench run": "--backbones tiny,none --image-size 96 --train-count 8 --test-count 4",
    "pytest benchmarks": "--benchmark-disable",
    "python -m benchmarks.convergence": "--backbones tiny --train 8 --test 4",
    "python -m benchmarks.peers": "--backbone tiny --train 8 --test 4",
    "python -m benchmarks.pictures": "--folder pictures --train 8 --test 4",
    "python -m benchmarks.price": "--backbones tf_efficientnet_lite0 --train 8 --test 4 --rounds 1",
    "python -m benchmarks.simulate_scale": "--backbones 2",
    "python benchmarks/many_images.py": "--backbone tiny --crops 20",
    "python benchmarks/null_jobs.py": "--jobs 2",
    "python benchmarks/padding_cost.py": "--backbones tiny --paddings circular --rounds 1 --images 2",
    "python benchmarks/position_modes.py": "--backbone tiny --counts 4,8",
}
#: Programs that a page may name; a test fails for one that `Shell` has no method for.
PROGRAM = r"(?:posbench|pip3?|python3?|pytest|git|ray|ruff|sbatch|uv)\s"
FENCED = r"^```(?P<language>\w*)\n(?P<block>.*?)^```$"
INLINE = rf"(?<!`)`(?P<inline>{PROGRAM}[^`]+)`"
FOLDERS = ("path/to/folder", "DUTS-TR-Image", "PASCAL-S")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shown(page: Path) -> Iterator[list[str]]:
    """Yield the commands of a page as words, in order, without comments after # or three blanks."""
    for block in re.finditer(f"{FENCED}|{INLINE}", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        lines = (block["block"] or "").splitlines()
        match block["language"]:
            case None:
                yield shlex.split(block["inline"])
            case "bash":
                yield from called(block["block"])
            case "sh" if page != README:
                yield from map(words, lines)
            case "console":
                yield from (words(line.removeprefix("$ ")) for line in lines if line.startswith("$ "))
            case "text":
                yield from (words(line) for line in lines if re.match(PROGRAM, line))


def words(line: str) -> list[str]:
    return shlex.split(re.split(r"\s{3,}", line)[0], comments=True)


def called(script: str) -> Iterator[list[str]]:
    """Return the `posbench` commands of a shell script, as the first task of a Slurm array calls them."""
    function = 'posbench() { printf "%q " posbench "$@"; echo; }\n'
    environment = {"SLURM_ARRAY_TASK_ID": "1"}
    command = ["bash", "-euc", function + script]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return map(shlex.split, ran.stdout.splitlines())


def small(command: list[str]) -> list[str]:
    """Return the words of a command with the options of `SMALL` appended."""
    more = [text for start, text in SMALL.items() if command[: len(start.split())] == start.split()]
    return [*command, *shlex.split(" ".join(more))]


class Shell:
    """Run commands in a folder with images, a configuration and results: a method a program."""

    #: Scripts that have run, with their arguments: they write no files, so once is enough.
    _done: ClassVar[set[tuple[str, ...]]] = set()

    def __init__(self, posbench: Callable[..., Ran], site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._posbench, self._site, self._monkeypatch = posbench, site, monkeypatch
        monkeypatch.syspath_prepend(str(site))
        # Another page may have created and imported a plugin of this name.
        monkeypatch.delitem(sys.modules, "my_padding", raising=False)

    def posbench(self, command: str, *arguments: str) -> None:
        *arguments, redirect = arguments if arguments[-2:-1] == (">",) else (*arguments, "")
        if not arguments and any(parameter.required for parameter in COMMANDS[command].params):
            arguments = ["--help"]  # the page names the command without its arguments
        if command == "show":
            with Store(Path("posbench.db"), must_exist=True) as store:
                arguments = [next(iter(store.records())).cell_id if CELL.fullmatch(a) else a for a in arguments]
        ran = self._posbench(command, *(a for a in arguments if a != ">"))
        assert ran.code == 0, (command, arguments, ran.err)
        assert ran.out, (command, arguments)
        if redirect:
            Path(redirect).write_text(ran.out, encoding="utf-8")

    def pip(self, *arguments: str) -> None:
        assert arguments[0] == "install"
        install_source(arguments[-1], self._site)

    def python(self, *arguments: str) -> None:
        """Run a script or module of the checkout in this process."""
        if arguments in self._done:
            return
        name, *others = arguments[arguments[0] == "-m" :]
        self._monkeypatch.setattr(sys, "argv", [name, *others])
        self._monkeypatch.delitem(
            sys.modules, "benchmarks.price", raising=False
        )  # it keeps the registry of its first import
        threads = torch.get_num_threads()
        try:
            if arguments[0] == "-m":
                # Replaces pytest's __main__: processes that the module starts look functions up there.
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(TOP / name), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        self._done.add(arguments)

    def pytest(self, *arguments: str) -> None:
        """Run pytest on the checkout, in a process that finds the packages that the page has installed."""
        path = os.pathsep.join([str(self._site), *filter(None, sys.path)])
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert re.search(r"\d+ passed", ran.stdout)
        assert "skipped" not in ran.stdout.splitlines()[-1]


#: An id that a page shows; the reader's own cell has another one.
CELL = re.compile(r"[0-9a-f]{4,}")
COMMANDS = typer.main.get_group(app).commands


def install_source(source: str, site: Path) -> None:
    """Install a distribution from its source into `site`, without dependencies; its extras must exist."""
    name, _, extras = source.rstrip("]").partition("[")
    path = TOP if name == "position-bench" else TOP / name if (TOP / name).is_dir() else Path(name).resolve()
    project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(filter(None, extras.split(","))) <= project.get("optional-dependencies", {}).keys(), source
    # The posbench under test is not replaced.
    target = site.with_name("aside") if path == TOP else site
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(path)], check=True)
    importlib.invalidate_caches()


@pytest.fixture
def shell(posbench: Callable[..., Ran], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for i, name in enumerate(FOLDERS):
        Path(name).mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng([i, j]).integers(0, 256, (130, 130, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name) / f"{j}.png")
    Path("experiment.yaml").write_text(blocks(README, "yaml")[0], encoding="utf-8")
    before = ("--paddings", "zero,circular", "--metrics", "spc,modes", "--image-size", "64", "--store", "mine.db")
    assert posbench(*small(["posbench", "run"])[1:], *before).code == 0
    assert posbench("publish", "theirs", "--store", "mine.db").code == 0
    shutil.copy("mine.db", "posbench.db")
    return Shell(posbench, tmp_path / "installed", monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if any(shown(p))], ids=lambda p: str(p.relative_to(TOP)))
def test_every_command_shown_does_what_it_says(page: Path, shell: Shell, install: Callable[..., None]) -> None:
    if page.name == "plugins.md":
        for number, code in enumerate(blocks(page, "python")):
            install(f"guide-{number}", code)
    for command in shown(page):
        program, *arguments = small(command)
        getattr(shell, program)(*arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_command_shown_can_be_carried_out(page: Path) -> None:
    for program, *arguments in shown(page):
        assert hasattr(Shell, program), (program, *arguments)
        assert program != "posbench" or arguments[0] in COMMANDS, arguments


def test_the_readmes_shell_blocks_are_carried_out_by_ci() -> None:
    ci = (TOP / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r'eval "\$\(block (\d)\)"', ci) == ["1", "2"]
    assert len(blocks(README, "sh")) == 2
