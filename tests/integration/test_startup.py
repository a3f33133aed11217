"""Imports at start-up: which libraries a command, or `import posbench`, loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = {"torch", "timm", "numpy", "scipy", "pandas", "sklearn", "skimage", "rich", "pydantic"}
#: Libraries that only computing and tables need. NumPy is not among them: built-in targets import it.
COMPUTING = {"torch", "timm", "scipy", "pandas", "sklearn", "skimage"}
SMALL = ("--images", "leaves", "--targets", "H", "--image-size", "64", "--train-count", "4", "--test-count", "2")


def loaded(code: str, folder: Path) -> set[str]:
    """Run code in a new interpreter, in `folder` and without the model hub; return the `LIBRARIES` it has imported."""
    report = f"\nprint(*({LIBRARIES!r} & set(sys.modules)), file=sys.stderr)"
    completed = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code + report],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return set(completed.stderr.splitlines()[-1].split())


def loaded_by_command(arguments: tuple[str, ...], folder: Path) -> set[str]:
    """Run a command that must succeed; return the `LIBRARIES` it has imported."""
    code = (
        f"from posbench.cli import main\nsys.argv = ['posbench', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    return loaded(code, folder)


def test_help_loads_no_computing_library_and_no_pydantic(tmp_path: Path) -> None:
    assert not loaded_by_command(("--help",), tmp_path) & (COMPUTING | {"pydantic"})


# Newer versions of Typer load pydantic themselves to read any option, so its absence is tested above alone.
@pytest.mark.parametrize(
    "arguments", [("--version",), ("list",), ("list", "backbones"), ("list", "controls"), ("plugins",)], ids=" ".join
)
def test_lists_load_no_computing_library(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert not loaded_by_command(arguments, tmp_path) & COMPUTING


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--help"),
        ("run", "--dry-run"),
        ("run", "--dry-run", "--backbones", "resnet18,none", "--weights", "random"),
        ("run", "--dry-run", "--backbones", "vgg16,resnet50", "--paddings", "zero,circular"),
    ],
    ids=" ".join,
)
def test_planning_with_built_in_components_loads_no_torch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert not loaded_by_command(arguments, tmp_path) & COMPUTING


def test_a_run_without_a_network_of_timm_does_without_timm(tmp_path: Path) -> None:
    libraries = loaded_by_command(("run", "--backbones", "none", *SMALL), tmp_path)
    assert "torch" in libraries
    assert "timm" not in libraries


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import posbench", LIBRARIES),
        ("import posbench\nposbench.hookimpl, posbench.Padding, posbench.Metric, posbench.UsageError", LIBRARIES),
        ("import posbench\nposbench.run, posbench.Results", {"torch", "timm", "scipy", "pandas"}),
    ],
    ids=["the module", "a plugin's names", "a notebook's names"],
)
def test_importing_the_public_api_is_cheap(code: str, unwanted: set[str], tmp_path: Path) -> None:
    assert not loaded(code, tmp_path) & unwanted
