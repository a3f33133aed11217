"""Checks that a control keeps its contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.bench.controls import ControlInputs, checks_of
from posbench.bench.plan import Cell, PlanInputs, Source, make_plan
from posbench.core.errors import ComponentError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Fitted, Images, Padding, Readout, Target
from posbench.plugin.control import Control
from posbench.plugin.features import Features
from posbench.plugin.training import Training
from posbench.testing.assertions import expect, twice
from posbench.testing.sources import check_target


def check_control(control: Control) -> None:
    """Check that a control adds valid checks to cells of trained and untrained networks, on photographs and others.

    The same cell gets the same checks each time, each with an identity of its own and different from the cell; random
    states are undisturbed. A target that a check draws passes `check_target`. Changed features are those of the same
    images on the same grid, finite, and the same each time; the features that they are made from are left as they were.

    Raises:
        AssertionError: naming what was broken.
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
        for check in checks:
            _check(check, cell)


def _check(cell: Cell, checked: Cell) -> None:
    """Check a cell that a control adds, beside the cell that it checks."""
    check = cell.check
    assert check is not None, "a control adds it"  # noqa: S101  no claim about the control
    where = check.name
    same = replace(cell, control=None, check=None, control_of="")
    expect(same.id != checked.id or check.separate_fit or check.crop, where, "it differs in nothing from the cell")
    if check.target is not None:
        check_target(cell.target)
    if check.features is None:
        return
    for testing in (False, True):
        _check_features(cell, testing=testing)


def _check_features(cell: Cell, *, testing: bool) -> None:
    check = cell.check
    assert check is not None, "a control adds it"  # noqa: S101  no claim about the control
    change = check.features
    assert change is not None, "it was looked at"  # noqa: S101  no claim about the control
    where = f"{check.name}, {'test' if testing else 'training'} images"
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
    equal = all(torch.equal(first, second) for first, second in zip(changed.taps, again.taps, strict=True))
    expect(equal, where, "the same features were changed to others")
    unchanged = all(torch.equal(first, second) for first, second in zip(before, taps, strict=True))
    expect(unchanged, where, "the given features were modified")


def _inputs() -> ControlInputs:
    backbone = Backbone(name="no-network", summary="", version="1", build=torch.nn.Identity, taps=1, weightless=True)
    null_images = Images(name="null-images", summary="", version="1", draw=_draw_image, reference="null")
    return ControlInputs(backbone, Source(null_images), _photographs("photographs"), (0, 1))


def _cells(inputs: ControlInputs) -> Iterator[Cell]:
    """Yield cells of a trained and an untrained network on photographs and on null images."""
    folder = _photographs("folder")
    yield from make_plan(
        PlanInputs(
            networks=[
                (
                    Backbone(name="network", summary="", version="1", build=torch.nn.Identity, taps=2),
                    [Weights("trained:network@1", "ab" * 32), Weights("random:0", seed=0)],
                )
            ],
            paddings=[Padding(name="padding", summary="", version="1")],
            targets=[Target(name="ramp", summary="", version="1", draw=_ramp)],
            readouts=[Readout(name="readout", summary="", version="1", fit=_fit, grid=lambda side: side - 2)],
            metrics=[],
            sources=[(folder, folder), (inputs.null_images, inputs.null_images)],
            seeds=inputs.seeds,
            taps=["all"],
            n_train=16,
            n_test=8,
            image_size=96,
            precision="fp32",
        )
    ).cells


def _photographs(name: str) -> Source:
    return Source(Images(name=name, summary="", version="1", photographs=list), "cd" * 32, 15)


def _ramp(size: int) -> NDArray[np.float64]:
    return np.tile(np.linspace(0, 1, size), (size, 1))


def _draw_image(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def _fit(training: Training) -> Fitted:
    raise NotImplementedError("cells are planned only")
