"""The contract of controls: built-in ones keep it, and what breaks it is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from posbench.plugin.control import Check, Control
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry
from posbench.testing import check_control


@pytest.mark.parametrize("control", load_registry().every(Control), ids=lambda control: control.name)
def test_every_built_in_control_passes(control: Control) -> None:
    check_control(control)


def control(*checks: Check, call: Callable[..., Any] | None = None, **fields: Any) -> Control:
    """A control that returns these checks of each cell, or what a function returns."""
    defaults: dict[str, Any] = {"name": "mine", "summary": "", "version": "1"}
    return Control(checks=call or (lambda cell, context: checks), **(defaults | fields))


def changing(change: Callable[[Features], Any]) -> Control:
    """A control whose only check changes the features."""
    return control(Check(name="mine", features=lambda features, patterns, side, testing: change(features)))


def write(features: Features) -> Features:
    features.taps[0].zero_()
    return features


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (control(Check(name="other")), "mine: control 'mine': ValueError: check 'other' must be called 'mine'"),
        (control(Check(name="mine")), "mine: it differs in nothing from the cell"),
        (
            control(Check(name="mine", n_test=2), Check(name="mine", n_test=2)),
            "two checks of a cell have the same name",
        ),
        (
            control(call=lambda cell, context: [Check(name="mine", n_test=random.randrange(1, 999))]),  # noqa: S311
            "the random state of Python was disturbed",
        ),
        (
            control(call=lambda cell, context: [Check(name="mine", n_test=int(1000 * random.Random().random()) + 1)]),  # noqa: S311
            "called again, it returned other checks",
        ),
        (control(Check(name="mine", target=lambda size: np.zeros(size))), "has a target of its own, but the control"),
        (
            control(Check(name="mine", target=lambda size: np.zeros((size, size))), target_suffix="-flat"),
            "ramp-flat: it is constant",
        ),
        (changing(lambda features: features.taps), "it returned a tuple, no Features"),
        (changing(lambda features: features.of_images(slice(2))), "of the same images and grid"),
        (changing(lambda features: Features((features.taps[0] / 0,), features.grid)), "some features are not finite"),
        (changing(write), "the given features were modified"),
        (
            changing(lambda features: Features((torch.rand_like(features.taps[0]),), features.grid)),
            "the random state of torch was disturbed",
        ),
    ],
)
def test_a_control_that_breaks_its_contract(record: Control, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_control(record)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: control(name="all"), "a control cannot be called all"),
        (lambda: control(evidence="strong"), "evidence is 'strong'; it must be null, rotation or empty"),
        (lambda: Check(name="-"), "'-' is no name for a check"),
        (lambda: Check(name="mine", held_out="rows"), "held_out is 'rows'; it must be columns, quadrant or empty"),
    ],
)
def test_records_that_cannot_be_made(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()
