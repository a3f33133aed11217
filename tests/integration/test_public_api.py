"""The names of `posbench`, and the ways to start it."""

from __future__ import annotations

import subprocess
import sys

import posbench


def test_every_name_exists_and_completes() -> None:
    assert all(hasattr(posbench, name) for name in posbench.__all__)
    assert {"run", "backbone", "images", "Results"} <= set(dir(posbench))


def test_posbench_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "posbench", "--version"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert completed.stdout == f"posbench {posbench.__version__}\n"
