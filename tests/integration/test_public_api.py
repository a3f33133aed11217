"""The names of `posbench`, and the ways to start it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import posbench


def test_names_for_type_checkers_are_those_of_the_table() -> None:
    """`_MODULES` and the block under TYPE_CHECKING name the same modules."""
    [block] = [node for node in ast.parse(inspect.getsource(posbench)).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    assert {alias.asname: node.module for node in imports for alias in node.names} == posbench._MODULES
    assert all(alias.name == alias.asname for node in imports for alias in node.names)


def test_every_name_exists_and_completes() -> None:
    assert all(hasattr(posbench, name) for name in posbench.__all__)
    assert {"run", "backbone", "images", "Results"} <= set(dir(posbench))
    assert list(posbench._MODULES) == sorted(posbench._MODULES)


def test_posbench_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "posbench", "--version"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert completed.stdout == f"posbench {posbench.__version__}\n"
