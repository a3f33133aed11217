"""What all checks have in common: one line where a contract is broken, and calls that must leave no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from posbench.plugin.sandbox import isolated_state


def expect(fact: bool, where: str, what: str) -> None:
    """Say where a contract is broken, and how.

    Raises:
        AssertionError: unless it is a fact.
    """
    if not fact:
        raise AssertionError(f"{where}: {what}")


def twice(function: Callable[[], Any], where: str) -> tuple[Any, Any]:
    """What a function returns, and returns again from other random states, neither of which it may move.

    Raises:
        AssertionError: if it disturbs the random state of Python, NumPy or torch.
    """
    returned = []
    for seed in ("one", "other"):
        with isolated_state(seed):
            before = _states()
            returned.append(function())
            for name, one, other in zip(("Python", "NumPy", "torch"), before, _states(), strict=True):
                expect(one == other, where, f"the random state of {name} was disturbed")
    return returned[0], returned[1]


def _states() -> tuple[object, object, object]:
    return random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist()  # noqa: NPY002
