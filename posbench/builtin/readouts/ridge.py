"""The linear probe: ridge regression from standardised features to target maps, by conjugate gradients.

The readout is a k×k convolution over all taps, aligned to one grid. Its Gram matrix of (k²C)² entries would take many
times as long as the network, so it is never formed: `aligned_conv` multiplies by it. `q` stands for k·k·targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from posbench import Features, Inapplicable, Training
from posbench.builtin.readouts.aligned_conv import adjoint, convolve
from posbench.builtin.readouts.preconditioner import Preconditioner
from posbench.builtin.readouts.standardize import chunks, standardise
from posbench.core.errors import PosbenchError

#: A target has converged once `WINDOW` steps together lower its objective by less than this share of its variance.
#: About as much is then still to be gained, which changes rank correlations on test photographs by about .001.
TOLERANCE = 5e-4
WINDOW = 2
MAX_STEPS = 500
#: From this penalty on, residuals of bfloat16 features may be bfloat16 as well. That adds less than 3·10⁻⁵ / λ of a
#: target's variance to the objective, a tenth of the tolerance.
MIN_ROUNDED_PENALTY = 0.5

#: The penalties that cross-validation tries, and its number of folds.
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 3


@dataclass(frozen=True)
class LinearReadout:
    """A fitted linear readout.

    Attributes:
        weight: float32 [C, q] over the channels of all taps, for unstandardised features.
        bias: float32 [targets].
        kernel, padding: k, and the cells of zeros around the aligned features.
        steps: the number of conjugate-gradient steps of the fit.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    kernel: int
    padding: int
    steps: int

    def predict(self, features: Features) -> torch.Tensor:
        """Return the predicted maps, float32 [n, targets, side, side] with side = grid + 2·padding − k + 1."""
        maps = [convolve(batch, self.weight, self.kernel, self.padding) for batch in chunks(features)]
        return torch.cat(maps, dim=1).transpose(0, 1) + self.bias[:, None, None]


@dataclass(frozen=True)
class CrossValidatedRidge:
    """Linear readouts, one for each penalty that some target chose.

    Attributes:
        penalties: the chosen penalty of each target.
        errors: the mean squared error on held-out photographs, float64 [penalties tried, targets].
        readouts: by penalty, each for the targets that chose it, in their order.
    """

    penalties: Sequence[float]
    errors: torch.Tensor
    readouts: dict[float, LinearReadout]

    def predict(self, features: Features) -> torch.Tensor:
        """Return the predicted maps, float32 [n, targets, side, side]."""
        maps = {penalty: list(readout.predict(features).unbind(1)) for penalty, readout in self.readouts.items()}
        return torch.stack([maps[penalty].pop(0) for penalty in self.penalties], dim=1)


@torch.inference_mode()
def fit_ridge(
    features: Features, targets: torch.Tensor, *, kernel: int, penalty: float, padding: int = 0
) -> LinearReadout:
    """Fit the k×k convolution that predicts the targets with the least penalised squared error.

    With channels centred and scaled to unit variance over all cells of the aligned grid and all images, it minimises,
    for each target, the mean of (target − prediction)² over cells and images + penalty · Σ weight², with a free bias.
    Being a mean, the error weighs the same for any number of images. Constant channels are ignored.

    Args:
        features: of the training images. Residuals from their mean image are multiplied in bfloat16 if they are
            bfloat16 and the penalty is at least 0.5; everything else in float32.
        targets: float32 [targets, side, side] with side = grid + 2·padding − kernel + 1; NaN at masked cells, the same
            for all targets. Channels are standardised over all cells nonetheless.
        kernel, penalty: k, odd, and λ > 0.
        padding: cells of zeros around the aligned features before standardisation, as a convolution would add them.

    Raises:
        PosbenchError: if it has not converged within 500 steps, or the penalty is too small for float32.
        ValueError: if the targets hold NaN at different cells, or the kernel is larger than the grid.

    Source: Hoerl & Kennard, Technometrics 1970; Hestenes & Stiefel 1952 for the solver and its error estimate.
    """
    problem = _NormalEquations(features, targets, kernel, penalty, padding)
    solution, steps = _conjugate_gradients(problem)
    weight = problem.unstandardised(solution)
    predicted = problem.fitted_mean(convolve(problem.standardised.mean_image, weight, kernel, padding))
    return LinearReadout(weight, targets.nanmean(dim=(1, 2)) - predicted.flatten(), kernel, padding, steps)


def fit_ridge_cv(training: Training, side: int, *, kernel: int, padding: int = 0) -> CrossValidatedRidge:
    """Choose the penalty of each target by cross-validation over photographs, then fit on all of them.

    The photographs are divided into three folds; each fold in turn is predicted from the others. The maps have the side
    grid + 2·padding − kernel + 1.

    Raises:
        Inapplicable: if all training images are of one photograph.
    """
    names = sorted(set(training.photographs))
    if len(names) < 2:
        problem = "a penalty is chosen on held-out photographs, and there is one"
        raise Inapplicable(f"{problem}: give more, or --readouts ridge")
    features, targets = training.features, training.targets(side)
    fit = partial(fit_ridge, kernel=kernel, padding=padding)
    fold = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    of_image = np.array([fold[name] for name in training.photographs])
    errors = torch.zeros(len(PENALTIES), len(targets), dtype=torch.float64)
    for held_out in np.unique(of_image):
        train = features.of_images(np.flatnonzero(of_image != held_out).tolist())
        test = features.of_images(np.flatnonzero(of_image == held_out).tolist())
        for i, penalty in enumerate(PENALTIES):
            maps = fit(train, targets, penalty=penalty).predict(test)
            errors[i] += (maps - targets).double().square().nanmean(dim=(2, 3)).sum(0).cpu() / len(of_image)
    chosen = [PENALTIES[i] for i in errors.argmin(0).tolist()]
    readouts = {}
    for penalty in dict.fromkeys(chosen):
        own = targets[[i for i, choice in enumerate(chosen) if choice == penalty]]
        readouts[penalty] = fit(features, own, penalty=penalty)
    return CrossValidatedRidge(chosen, errors, readouts)


class _NormalEquations:
    """The normal equations (XᵀX + λN) w = Xᵀy of all targets; X holds the N centred, standardised patches of features.

    Weights are tensors [C, k², targets] over the channels of all taps together.
    """

    def __init__(self, features: Features, targets: torch.Tensor, kernel: int, penalty: float, padding: int) -> None:
        if kernel > features.grid:
            raise ValueError(f"a kernel of {kernel} cells is larger than the grid of {features.grid}")
        masked = targets.isnan()
        if bool((masked != masked[:1]).any()):
            raise ValueError("the targets must hold NaN at the same cells")
        self.features, self.kernel = features, kernel
        self._convolve = partial(convolve, kernel=kernel, padding=padding)
        self._adjoint = partial(adjoint, kernel=kernel, padding=padding)
        # With padding, channels are not centred: the padded zeros would no longer be zeros.
        self.standardised = standardise(features, centring=not padding, rounding=penalty >= MIN_ROUNDED_PENALTY)
        self.fitted = (~masked[0]).float()
        self.penalty = penalty * len(features) * int(self.fitted.sum())
        # [targets, 1, side, side]: every image has the same targets.
        self.targets = (targets - targets.nanmean(dim=(1, 2), keepdim=True)).nan_to_num()[:, None]
        self.variance = self.targets.square().sum(dim=(1, 2, 3)).double() * len(features)
        self.precondition = Preconditioner(self.standardised, kernel, padding, ~masked[0], penalty)

    def multiply(self, weight: torch.Tensor) -> torch.Tensor:
        """Return (XᵀX + λN) w, from one pass over the features."""
        own = self.unstandardised(weight)
        return self.mean_adjoint(self._predict_mean(own)) + self._residual_product(own) + self.penalty * weight

    def unstandardised(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights for unstandardised features, [C, q]."""
        return weight.flatten(1) * self.standardised.scale[:, None]

    def fitted_mean(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the mean of maps [targets, n, side, side] over fitted cells, [targets, 1, 1, 1]."""
        return (maps * self.fitted).sum(dim=(1, 2, 3), keepdim=True) / (maps.shape[1] * self.fitted.sum())

    # Residuals sum to zero over images, so XᵀX is the sum of the mean image's part and the residuals' part.

    def _predict_mean(self, own: torch.Tensor) -> torch.Tensor:
        """Return the centred prediction for the mean image; centring it is the same as centring the columns of X."""
        maps = self._convolve(self.standardised.centred_mean, own)
        return (maps - self.fitted_mean(maps)) * self.fitted

    def mean_adjoint(self, maps: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `_predict_mean`, times the number of images."""
        return self._standardise(self._adjoint(self.standardised.centred_mean, maps * len(self.features)))

    def _residual_product(self, own: torch.Tensor) -> torch.Tensor:
        """Return the residuals' part of XᵀX w. Where the operands include the mean image, its part is subtracted."""
        rounded = self.standardised.rounded
        mean = None if rounded else self.standardised.mean_image
        mean_maps = own.new_zeros(()) if mean is None else self._convolve(mean, own)
        total, sum_of_maps = torch.zeros_like(own), own.new_zeros(())
        for batch in self.standardised.operands():
            maps = (self._convolve(batch, own, rounded=rounded) - mean_maps) * self.fitted
            total += self._adjoint(batch, maps, rounded=rounded)
            sum_of_maps = sum_of_maps + maps.sum(1, keepdim=True)
        if mean is not None:
            total -= self._adjoint(mean, sum_of_maps)
        return self._standardise(total)

    def _standardise(self, gradient: torch.Tensor) -> torch.Tensor:
        return (gradient * self.standardised.scale[:, None]).view(len(gradient), self.kernel**2, -1)


def _conjugate_gradients(problem: _NormalEquations) -> tuple[torch.Tensor, int]:
    """Solve for all targets side by side, each until it has converged; targets do not affect each other."""
    residual = problem.mean_adjoint(problem.targets)  # Xᵀy
    converged = torch.zeros_like(residual)
    solution = torch.zeros_like(residual)
    direction = conditioned = problem.precondition(residual)
    power = _dot(residual, conditioned)
    active = torch.arange(len(power), device=power.device)
    decreases = torch.full((WINDOW, len(power)), torch.inf, dtype=torch.float64, device=power.device)
    for step in range(MAX_STEPS):
        if bool((power < 0).any()):
            raise PosbenchError("the linear readout's penalty is too small for float32: give a larger one")
        done = (decreases.sum(0) <= TOLERANCE * problem.variance[active]) | (power == 0)
        if bool(done.any()):
            converged[..., active[done]] = solution[..., done]
            solution, residual, direction, power, active, decreases = (
                part[..., ~done] for part in (solution, residual, direction, power, active, decreases)
            )
        if not len(active):
            return converged, step
        product = problem.multiply(direction)
        length = power / _dot(direction, product)
        # Each step lowers the objective by α rᵀz. The decrease of the last few bounds what is still to be gained.
        decreases = torch.cat([decreases[1:], (length * power)[None]])
        solution = solution + direction * length.float()
        residual = residual - product * length.float()
        conditioned = problem.precondition(residual)
        before, power = power, _dot(residual, conditioned)
        direction = conditioned + direction * (power / before).float()
    raise PosbenchError(f"the linear readout has not converged within {MAX_STEPS} steps")


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=(0, 1), dtype=torch.float64)
