"""A new plugin of each kind: it installs, is found, passes its own tests, is clean, and can be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from posbench.plugin.registry import KINDS
from tests.conftest import Ran
from tests.forked_cli import ForkServer, fork_server

COMPONENTS = list(KINDS)


@pytest.fixture(scope="module")
def started() -> Iterator[ForkServer]:
    with fork_server() as server:
        yield server


def with_site(site: Path) -> str:
    """PYTHONPATH, so that a site is all that is added to this environment."""
    return os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])


def python(*arguments: str, site: Path, folder: Path) -> str:
    """What a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": with_site(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("kind", COMPONENTS)
def test_a_new_plugin_installs_is_found_passes_its_tests_and_is_clean(
    kind: str, tmp_path: Path, posbench: Callable[..., Ran], started: ForkServer
) -> None:
    name, site = f"my-own-{kind}", tmp_path / "site"
    made = posbench("new-plugin", kind, name, "--into", str(tmp_path))
    assert made.code == 0, made.err
    folder = tmp_path / name
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    python(*pip, str(folder), site=site, folder=tmp_path)
    assert "3 passed" in python("-m", "pytest", "-p", "no:cacheprovider", site=site, folder=folder)
    python("-m", "ruff", "check", "--no-cache", ".", site=site, folder=folder)
    python("-m", "ruff", "format", "--no-cache", "--check", ".", site=site, folder=folder)

    def command(*words: str) -> str:
        code, out, err = started.run(tmp_path, *words, site=site, PYTHONPATH=with_site(site))
        assert code == 0, err
        return out

    listed = command("list", kind if kind == "images" else f"{kind}s")
    assert f"{name} 0.1.0" in " ".join(listed.replace("│", " ").split())
    # The last line that `new-plugin` prints, on few and small crops.
    *_, shown = made.out.strip().splitlines()
    words = shown.split()[1:]
    small = ("--image-size", "64", "--train-count", "8", "--test-count", "4", "--quiet", "--json")
    if kind != "images":
        small = (*small, "--images", "leaves")
    ran = command(*words, *small)
    assert '"status": "ok"' in ran
    assert '"status": "failed"' not in ran
    # Where a cell was computed is not part of it.
    assert (name in ran) == (kind != "executor")


def test_the_longest_name_is_clean_too(tmp_path: Path, posbench: Callable[..., Ran]) -> None:
    for kind in COMPONENTS:
        assert posbench("new-plugin", kind, f"{kind}-{'x' * (59 - len(kind))}", "--into", str(tmp_path)).code == 0
        assert posbench("new-plugin", kind, f"x-{kind}", "--into", str(tmp_path)).code == 0
    for check in (("check",), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--no-cache", str(tmp_path)],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pading", "my-padding"), "unknown kind 'pading': did you mean padding?"),
        (("padding", "../x"), "'../x' is no name for a plugin: give small letters, digits and -, as my-padding"),
        (("padding", "=1+1"), "'=1+1' is no name"),
        (("padding", "My-Padding"), "'My-Padding' is no name"),
        (("padding", "a--b"), "'a--b' is no name"),
        (("padding", "a" * 61), "is no name"),
        (("padding", "class"), "'class' would make a module that Python has already: give another name, as my-class"),
        (("padding", "json"), "'json' would make a module that Python has already"),
        (("padding", "torch"), "'torch' would hide the installed module 'torch'"),
        (("padding", "zero"), "there is a padding 'zero' already: give another name, as my-zero"),
        (("padding", "my-padding", "--into", "file/x"), "cannot be made (Not a directory): name a folder with --into"),
        (("padding", "there"), "'there' exists: give another name, or another folder with --into"),
    ],
)
def test_what_cannot_be_made_is_one_line(words: Sequence[str], message: str, posbench: Callable[..., Ran]) -> None:
    Path("file").write_text("", encoding="utf-8")
    (Path("there") / "tests").mkdir(parents=True)
    before = sorted(Path.cwd().rglob("*"))
    ran = posbench("new-plugin", *words)
    assert (ran.code, ran.out) == (2, "")
    [line] = ran.err.splitlines()
    assert message in line
    assert sorted(Path.cwd().rglob("*")) == before


def test_the_plural_will_do(posbench: Callable[..., Ran]) -> None:
    ran = posbench("new-plugin", "paddings", "my-padding")
    assert ran.code == 0
    assert ran.out.splitlines()[1] == "  pip install -e ./my-padding"
    assert sorted(str(path.relative_to("my-padding")) for path in Path("my-padding").rglob("*")) == [
        "README.md",
        "my_padding.py",
        "pyproject.toml",
        "tests",
        "tests/test_my_padding.py",
    ]
