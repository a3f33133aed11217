"""Changes that built-in controls make to features and training: noise, targets, held-out positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.builtin.controls import noise, with_targets
from posbench.builtin.readouts.hooks import ridge, ridge_cv, sgd
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.plugin.components import Fitted, Target
from posbench.plugin.features import Features
from posbench.plugin.resampling import resize
from posbench.plugin.training import Training, held_out

GRID = 12
H, G = (
    pattern(Target(name="t", summary="", version="1", draw=draw)) for draw in (targets.horizontal, targets.gaussian)
)
PATTERNS = torch.stack([H, G])


def features(seed: int = 0, images: int = 6) -> Features:
    generator = torch.Generator().manual_seed(seed)
    taps = (torch.randn(images, side, side, 3, generator=generator) for side in (GRID, 5))
    return Features(tuple(taps), GRID)


def training(**changes: object) -> Training:
    names = [f"photo-{i}" for i in range(6)]
    return replace(
        Training(features=features(), photographs=names, patterns=PATTERNS, image_size=96),
        **changes,  # type: ignore[arg-type]
    )


def test_noise_has_the_shapes_and_is_another_in_each_role() -> None:
    plain = features()
    train, again, test = (noise(plain, PATTERNS, GRID, testing) for testing in (False, False, True))
    for a, b, c, before in zip(train.taps, again.taps, test.taps, plain.taps, strict=True):
        assert a.shape == before.shape
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert float(torch.cat([tap.flatten() for tap in train.taps]).std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("side", [GRID - 2, GRID, GRID + 2])
def test_a_target_among_the_features_stands_under_its_own_cell(side: int) -> None:
    added = with_targets(features(), PATTERNS, side, False).taps[-1]
    assert added.shape == (6, GRID, GRID, 2)
    if side < GRID:
        margin = (GRID - side) // 2
        assert torch.equal(added[0, margin:-margin, margin:-margin].permute(2, 0, 1), resize(PATTERNS, side))
    elif side == GRID:
        assert torch.equal(added[3].permute(2, 0, 1), resize(PATTERNS, side))


def test_held_out_cells_are_half_or_a_quarter() -> None:
    grid = np.zeros((10, 10))
    grid[held_out("columns", 10)] = 1
    assert grid.sum() == 50
    assert grid[:, 1].all()
    quadrant = np.zeros((10, 10))
    quadrant[held_out("quadrant", 10)] = 1
    assert quadrant.sum() == 25
    assert quadrant[5:, 5:].all()


@pytest.mark.parametrize("positions", ["columns", "quadrant"])
def test_ridge_on_part_of_the_grid_is_ridge_on_these_rows(positions: str) -> None:
    """Against scikit-learn on the patches of the asked cells alone, in float64."""
    given = training(held_out=positions)
    fitted = fit_ridge(given.features, given.targets(GRID - 2), kernel=3, penalty=1.0)
    aligned = given.features.aligned().double()
    cells = aligned.permute(1, 0, 2, 3).flatten(1)
    standard = (aligned - cells.mean(1)[None, :, None, None]) / cells.std(1, correction=0)[None, :, None, None]
    patches = standard.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
    asked = torch.ones(GRID - 2, GRID - 2, dtype=torch.bool)
    asked[held_out(positions, GRID - 2)] = False
    x = patches[:, asked].flatten(0, 1).numpy()
    drawn = fitted.predict(given.features)
    for i, target in enumerate(resize(PATTERNS, GRID - 2).double()):
        y = target[asked].repeat(6).numpy()
        theirs = Ridge(alpha=len(x)).fit(x, y).predict(patches.flatten(0, 2).numpy()).reshape(6, GRID - 2, GRID - 2)
        assert drawn[:, i].numpy() == pytest.approx(theirs, abs=0.02)


def test_targets_that_ask_for_different_cells_are_refused() -> None:
    uneven = training().targets(GRID - 2)
    uneven[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN at the same cells"):
        fit_ridge(features(), uneven, kernel=3, penalty=1.0)


@pytest.mark.parametrize(
    "fit", [ridge, ridge_cv, lambda given: sgd(given, bounded=True), lambda given: sgd(given, bounded=False)]
)
def test_every_readout_leaves_held_out_cells_alone(fit: object) -> None:
    """What a target is where nothing is asked makes no difference to what is drawn, and all of it is drawn."""
    assert callable(fit)
    maps = []
    for value in (0.0, 1.0):
        changed = PATTERNS.clone()
        changed[:, 140:, 140:] = value  # within the quadrant by more than resizing mixes
        fitted: Fitted = fit(training(held_out="quadrant", patterns=changed))
        maps.append(fitted.predict(features(1)))
    assert bool(maps[0].isfinite().all())
    assert torch.allclose(*maps, atol=1e-4)
