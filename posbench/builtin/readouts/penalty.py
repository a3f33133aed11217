"""Ridge regression whose penalty is chosen, for each target, on photographs that its weights have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from posbench.builtin.readouts.ridge import LinearReadout, fit_ridge
from posbench.core.errors import Inapplicable
from posbench.plugin.features import Features
from posbench.plugin.training import Training

#: The penalties that are tried, in the scale of `fit_ridge`.
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 3


@dataclass(frozen=True)
class ChosenRidge:
    """Linear readouts, one for each penalty that was chosen.

    Attributes:
        penalties: of each target.
        errors: the mean squared error on held-out photographs, float64 [penalties tried, targets].
        readouts: by penalty, for the targets that chose it, in their order.
    """

    penalties: Sequence[float]
    errors: torch.Tensor
    readouts: dict[float, LinearReadout]

    def predict(self, features: Features) -> torch.Tensor:
        """The drawn maps, float32 [n, targets, side, side]."""
        drawn = {penalty: list(readout.predict(features).unbind(1)) for penalty, readout in self.readouts.items()}
        return torch.stack([drawn[penalty].pop(0) for penalty in self.penalties], dim=1)


def fit_ridge_cv(training: Training, side: int, *, kernel: int, padding: int = 0) -> ChosenRidge:
    """Choose the penalty of each target by cross-validation over photographs, then fit on all of them.

    The photographs are dealt into three folds; each in turn is predicted from the others.

    Args:
        training: the task.
        side: of the maps to draw: grid + 2·padding − kernel + 1.
        kernel, padding: as `fit_ridge` takes them.

    Raises:
        Inapplicable: if all training images are of one photograph.
    """
    names = sorted(set(training.photographs))
    if len(names) < 2:
        raise Inapplicable(
            "a penalty is chosen on held-out photographs, and there is one: give more, or --readouts ridge"
        )
    targets = training.targets(side)
    fold = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    of_image = np.array([fold[name] for name in training.photographs])
    errors = torch.zeros(len(PENALTIES), len(targets), dtype=torch.float64)
    for held_out in np.unique(of_image):
        rest, unseen = (
            training.features.of_images(np.flatnonzero(chosen).tolist())
            for chosen in (of_image != held_out, of_image == held_out)
        )
        for i, penalty in enumerate(PENALTIES):
            drawn = fit_ridge(rest, targets, kernel=kernel, penalty=penalty, padding=padding).predict(unseen)
            errors[i] += (drawn - targets).double().square().nanmean(dim=(2, 3)).sum(0).cpu() / len(of_image)
    best = errors.argmin(0).tolist()
    chosen = [PENALTIES[i] for i in best]
    readouts = {
        penalty: fit_ridge(
            training.features,
            targets[[i for i, own in enumerate(chosen) if own == penalty]],
            kernel=kernel,
            penalty=penalty,
            padding=padding,
        )
        for penalty in dict.fromkeys(chosen)
    }
    return ChosenRidge(chosen, errors, readouts)
