"""Assertions shared by all checks: one-line messages, and calls that must not disturb random states."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from posbench.plugin.sandbox import isolated_state


def expect(condition: bool, where: str, problem: str) -> None:
    """Raise AssertionError, which says where and the problem, unless a condition of a contract is true."""
    if not condition:
        raise AssertionError(f"{where}: {problem}")


def twice(function: Callable[[], Any], where: str) -> tuple[Any, Any]:
    """Call a function from two different random states, which it must not change, and return both results."""
    results = []
    for seed in ("one", "other"):
        with isolated_state(seed):
            before = _states()
            results.append(function())
            for name, old, new in zip(("Python", "NumPy", "torch"), before, _states(), strict=True):
                expect(old == new, where, f"the random state of {name} was disturbed")
    return results[0], results[1]


def same_tensors(first: Iterable[torch.Tensor], second: Iterable[torch.Tensor]) -> bool:
    """Return True if the tensors are equal, one by one."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _states() -> tuple[object, object, object]:
    return random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist()  # noqa: NPY002
