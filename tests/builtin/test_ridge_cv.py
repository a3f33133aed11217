"""The penalty that is chosen, against scikit-learn's search over the same folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from posbench.builtin.readouts import ridge
from posbench.builtin.readouts.ridge import PENALTIES, fit_ridge, fit_ridge_cv
from posbench.core.errors import Inapplicable
from posbench.plugin.features import Features
from posbench.plugin.training import Training

GRID = 6


def training(photographs: list[str]) -> Training:
    """One target that the features show well, one that they show badly, and one that they do not show."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, GRID).expand(GRID, GRID)
    tap = torch.randn(len(photographs), GRID, GRID, 5, generator=generator)
    tap[..., 0] = 0.1 * tap[..., 0] + ramp
    tap[..., 1] = 2 * tap[..., 1] + ramp.T
    patterns = torch.stack([ramp, ramp.T, torch.randn(GRID, GRID, generator=generator)])
    large = torch.nn.functional.interpolate(patterns[:, None], (256, 256), mode="nearest-exact")[:, 0]
    return Training(features=Features((tap,), GRID), photographs=photographs, patterns=large, image_size=8 * GRID)


def test_it_is_the_penalty_that_errs_least_on_held_out_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    names = [f"p{i % 5}" for i in range(12)]
    task = training(names)
    targets = task.targets(GRID)
    fitted = fit_ridge_cv(task, GRID, kernel=1)
    # With a 1×1 kernel each cell is a row, and the folds are those of photographs.
    fold = dict(zip(sorted(set(names)), np.random.default_rng(0).permutation(5) % 3, strict=True))
    of_row = np.repeat([fold[name] for name in names], GRID**2)
    rows = task.features.taps[0].reshape(-1, 5).double().numpy()
    answers = np.tile(targets.flatten(1).T.double().numpy(), (len(names), 1))
    for i, penalty in enumerate(PENALTIES):
        errors = np.zeros(3)
        for held_out in range(3):
            seen = of_row != held_out
            model = make_pipeline(StandardScaler(), Ridge(alpha=penalty * seen.sum())).fit(rows[seen], answers[seen])
            errors += ((model.predict(rows[~seen]) - answers[~seen]) ** 2).sum(0) / len(rows)
        assert fitted.errors[i].tolist() == pytest.approx(errors.tolist(), rel=1e-4)
    assert fitted.penalties == [PENALTIES[i] for i in fitted.errors.argmin(0)]
    assert len(set(fitted.penalties)) > 1
    drawn = fitted.predict(task.features)
    for i, penalty in enumerate(fitted.penalties):
        alone = fit_ridge(task.features, targets[i : i + 1], kernel=1, penalty=penalty).predict(task.features)
        torch.testing.assert_close(drawn[:, i], alone[:, 0], rtol=0, atol=1e-5)


def test_two_photographs_are_held_out_in_turn() -> None:
    assert len(fit_ridge_cv(training(["a", "b", "a", "b"]), GRID - 2, kernel=3).penalties) == 3


def test_one_photograph_leaves_nothing_to_choose_on() -> None:
    with pytest.raises(Inapplicable, match=r"held-out photographs, and there is one: give more"):
        fit_ridge_cv(training(["a"] * 4), GRID, kernel=1)
