"""Checks that a control keeps its contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.bench.controls import ControlInputs, checks_of
from posbench.bench.plan import Cell, PlanInputs, Source, make_plan
from posbench.core.errors import ComponentError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Fitted, Images, Padding, Readout, Target
from posbench.plugin.control import Check, Control, FeatureChange
from posbench.plugin.features import Features
from posbench.plugin.training import Training
from posbench.testing.assertions import expect, same_tensors, twice
from posbench.testing.sources import check_target


def check_control(control: Control) -> None:
    """Raise AssertionError unless a control adds valid checks to cells of several networks and images.

    The cells are of trained and untrained networks, on photographs and others.

    The same cell gets the same checks each time, each with an identity of its own and different from the cell; random
    states are undisturbed. A target that a check draws passes `check_target`. Changed features are those of the same
    images on the same grid, finite, and the same each time; the features that they are made from are left as they were.
    """
    where = control.name
    inputs = _inputs()
    for cell in _cells(inputs):
        try:
            checks, again = twice(lambda cell=cell: checks_of(cell, [control], inputs), where)  # type: ignore[misc]
        except ComponentError as error:
            raise AssertionError(f"{where}: {error}") from error
        ids = [check.id for check in checks]
        expect(ids == [check.id for check in again], where, "called again, it returned other checks")
        expect(len(set(ids)) == len(ids), where, "two checks of a cell have the same name and settings")
        for added in checks:
            if added.check:
                _check(added, added.check, cell)


def _check(cell: Cell, check: Check, checked: Cell) -> None:
    """Check a cell that a control adds, beside the cell that it checks."""
    same = replace(cell, control=None, check=None, control_of="")
    different = same.id != checked.id or check.separate_fit or check.crop
    expect(different, check.name, "it differs in nothing from the cell")
    if check.target is not None:
        check_target(cell.target)
    if check.features is not None:
        _check_features(cell, check.features, f"{check.name}, training images", testing=False)
        _check_features(cell, check.features, f"{check.name}, test images", testing=True)


def _check_features(cell: Cell, change: FeatureChange, where: str, *, testing: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = cell.job.test_grid if testing else cell.job.grid
    taps = tuple(torch.randn(6, side, side, 4, generator=generator) for side in (grid, grid // 2))
    before = [tap.clone() for tap in taps]
    patterns = torch.linspace(0, 1, 256).expand(2, 256, 256).clone()
    side = cell.readout.grid(grid)
    changed, again = twice(lambda: change(Features(taps, grid), patterns, side, testing), where)
    expect(isinstance(changed, Features), where, f"it returned a {type(changed).__name__}, no Features")
    fits = (len(changed), changed.grid) == (6, grid) and all(tap.ndim == 4 for tap in changed.taps)
    expect(fits, where, "the features must be [n, height, width, channels] of the same images and grid")
    expect(all(bool(tap.isfinite().all()) for tap in changed.taps), where, "some features are not finite")
    expect(same_tensors(changed.taps, again.taps), where, "the same features were changed to others")
    expect(same_tensors(before, taps), where, "the given features were modified")


def _inputs() -> ControlInputs:
    backbone = Backbone(**_named("no-network"), build=torch.nn.Identity, taps=1, weightless=True)
    null_images = Images(**_named("null-images"), draw=_noise, reference="null")
    return ControlInputs(backbone, Source(null_images), _photographs("photographs"), (0, 1))


def _cells(inputs: ControlInputs) -> Iterable[Cell]:
    """Return cells of a trained and an untrained network on photographs and on null images."""
    folder, null_images = _photographs("folder"), inputs.null_images
    network = Backbone(**_named("network"), build=torch.nn.Identity, taps=2)
    weights = [Weights("trained:network@1", "ab" * 32), Weights("random:0", seed=0)]
    planned = PlanInputs(
        networks=[(network, weights)],
        paddings=[Padding(**_named("padding"))],
        targets=[Target(**_named("ramp"), draw=lambda size: np.tile(np.linspace(0, 1, size), (size, 1)))],
        readouts=[Readout(**_named("readout"), fit=_fit, grid=lambda side: side - 2)],
        metrics=[],
        sources=[(folder, folder), (null_images, null_images)],
        seeds=inputs.seeds,
        taps=["all"],
        n_train=16,
        n_test=8,
        image_size=96,
        precision="fp32",
    )
    return make_plan(planned).cells


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "summary": "", "version": "1"}


def _photographs(name: str) -> Source:
    return Source(Images(**_named(name), photographs=list), "cd" * 32, 15)


def _noise(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def _fit(training: Training) -> Fitted:
    raise NotImplementedError("cells are planned only")
