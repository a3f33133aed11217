"""Assertions shared by all checks: one-line messages, and calls that must not disturb random states."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from posbench.plugin.sandbox import isolated_state


def expect(condition: bool, where: str, problem: str) -> None:
    """Check a condition of a contract.

    Raises:
        AssertionError: if it is false; says where, and the problem.
    """
    if not condition:
        raise AssertionError(f"{where}: {problem}")


def twice(function: Callable[[], Any], where: str) -> tuple[Any, Any]:
    """Call a function from two different random states, and return both results.

    Raises:
        AssertionError: if a call changes the random state of Python, NumPy or torch.
    """
    results = []
    for seed in ("one", "other"):
        with isolated_state(seed):
            before = _states()
            results.append(function())
            for name, old, new in zip(("Python", "NumPy", "torch"), before, _states(), strict=True):
                expect(old == new, where, f"the random state of {name} was disturbed")
    return results[0], results[1]


def _states() -> tuple[object, object, object]:
    return random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist()  # noqa: NPY002
