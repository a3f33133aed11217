"""The linear probe: ridge regression from standardised features to target maps, by conjugate gradients.

The readout is a k×k convolution over all taps, aligned to one grid, without padding unless it is asked for. Its Gram
matrix would have (k²C)² entries and cost many times the network itself; here it is only ever multiplied by, as
`posbench.builtin.readouts.aligned_conv` does it. `q` stands for k·k·targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posbench.builtin.readouts.aligned_conv import adjoint, convolve
from posbench.builtin.readouts.preconditioner import Preconditioner
from posbench.builtin.readouts.standardize import pieces, standardise
from posbench.core.errors import PosbenchError
from posbench.plugin.features import Features

#: A target is done once its objective has fallen, over `WINDOW` steps together, by less than this share of its
#: variance. About as much is then left to be had, which moves rank correlations on unseen photographs by some .001.
TOLERANCE = 5e-4
WINDOW = 2
MOST_STEPS = 500
#: From this penalty on, departures of bfloat16 features from their mean image may be bfloat16 as well: that adds less
#: than 3·10⁻⁵ / λ of a target's variance to the objective, a tenth of the tolerance.
ROUNDABLE = 0.5


@dataclass(frozen=True)
class LinearReadout:
    """A fitted linear readout.

    Attributes:
        weight: float32 [C, q] over the channels of all taps, for features in their own scale.
        bias: float32 [targets].
        kernel: k.
        padding: cells of zeros around the aligned features.
        steps: the conjugate-gradient steps that the fit took.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    kernel: int
    padding: int
    steps: int

    def predict(self, features: Features) -> torch.Tensor:
        """The drawn maps, float32 [n, targets, side, side] with side = grid + 2·padding − k + 1."""
        maps = [convolve(batch, self.weight, self.kernel, self.padding) for batch in pieces(features)]
        return torch.cat(maps, dim=1).transpose(0, 1) + self.bias[:, None, None]


@torch.inference_mode()
def fit_ridge(
    features: Features, targets: torch.Tensor, *, kernel: int, penalty: float, padding: int = 0
) -> LinearReadout:
    """The k×k convolution that draws the targets best, penalised in the scale of standardised channels.

    With channels centred and scaled to unit variance over all cells of the aligned grid and all images, it minimises,
    for each target, the mean of (target − prediction)² over cells and images + penalty · Σ weight², with a free bias.
    The mean, not the sum, so that the penalty means the same for any number of images. Constant channels take no part.

    Args:
        features: of the training images. What departs from their mean image is multiplied in bfloat16 where they are
            bfloat16 and the penalty is 0.5 or more; all else in float32.
        targets: float32 [targets, side, side] with side = grid + 2·padding − kernel + 1; NaN at cells of which nothing
            is asked, the same ones for all targets. Channels are standardised over all cells nonetheless.
        kernel: k, odd.
        penalty: λ > 0.
        padding: cells of zeros around the aligned features, in their own scale and not the standardised one, as a
            convolution on them would add.

    Raises:
        PosbenchError: if it has not converged within 500 steps, or the penalty is too small for float32.
        ValueError: if the targets hold NaN at different cells, or the kernel is larger than the grid.

    Source:
        Hoerl & Kennard, Technometrics 1970; Hestenes & Stiefel 1952 for the solver and its estimate of the error.
    """
    problem = _Problem(features, targets, kernel, penalty, padding)
    solution, steps = _conjugate_gradients(problem)
    weight = problem.unscaled(solution)
    drawn = problem.asked_mean(convolve(problem.found.mean, weight, kernel, padding))
    return LinearReadout(weight, targets.nanmean(dim=(1, 2)) - drawn.flatten(), kernel, padding, steps)


class _Problem:
    """The normal equations (XᵀX + λN) w = Xᵀy of all targets, X being the N standardised patches that are asked about,
    centred.

    Weights are held as one tensor [C, k², targets] over the channels of all taps together.
    """

    def __init__(self, features: Features, targets: torch.Tensor, kernel: int, penalty: float, padding: int) -> None:
        if kernel > features.grid:
            raise ValueError(f"a kernel of {kernel} cells is larger than the grid of {features.grid}")
        unasked = targets.isnan()
        if bool((unasked != unasked[:1]).any()):
            raise ValueError("the targets must hold NaN at the same cells")
        self.features, self.kernel, self.padding = features, kernel, padding
        # Less its mean, a channel would no longer be zero where padding is.
        self.found = standardise(features, centring=not padding, rounding=penalty >= ROUNDABLE)
        #: 1 for a cell of which something is asked, else 0, float32 [side, side].
        self.asked = (~unasked[0]).float()
        self.penalty = penalty * len(features) * int(self.asked.sum())
        #: What is to be drawn, centred: [targets, 1, side, side]. Every image is to be answered with the same maps.
        self.targets = (targets - targets.nanmean(dim=(1, 2), keepdim=True)).nan_to_num()[:, None]
        self.variance = self.targets.square().sum(dim=(1, 2, 3)).double() * len(features)
        self.precondition = Preconditioner(self.found, kernel, padding, ~unasked[0], penalty)

    def multiply(self, weight: torch.Tensor) -> torch.Tensor:
        """(XᵀX + λN) w, in one visit to the features."""
        own = self.unscaled(weight)
        return self._back(self._drawn(own)) + self._content(own) + self.penalty * weight

    def right(self) -> torch.Tensor:
        """Xᵀy."""
        return self._back(self.targets)

    def unscaled(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights for features in their own scale, [C, q]."""
        return weight.flatten(1) * self.found.scale[:, None]

    def asked_mean(self, drawn: torch.Tensor) -> torch.Tensor:
        """The mean of maps [targets, n, side, side] over what is asked, [targets, 1, 1, 1]."""
        return (drawn * self.asked).sum(dim=(1, 2, 3), keepdim=True) / (drawn.shape[1] * self.asked.sum())

    # Departures sum to zero, so that XᵀX is what the mean image has in it, and what departures have.

    def _drawn(self, own: torch.Tensor) -> torch.Tensor:
        """What is drawn from the mean image, centred, which is the same as centring the columns of X."""
        drawn = self._read(self.found.image, own)
        return (drawn - self.asked_mean(drawn)) * self.asked

    def _back(self, drawn: torch.Tensor) -> torch.Tensor:
        """The adjoint of `_drawn`, as often as there are images."""
        return self._scaled(self._written(self.found.image, drawn * len(self.features)))

    def _content(self, own: torch.Tensor) -> torch.Tensor:
        """What departures have in XᵀX; the mean image that parts may hold is taken from what comes of them."""
        common, rounded = self.found.common, self.found.rounded
        of_common = own.new_zeros(()) if common is None else self._read(common, own)
        total, drawn_by_all = torch.zeros_like(own), own.new_zeros(())
        for batch in self.found.parts():
            drawn = (self._read(batch, own, rounded=rounded) - of_common) * self.asked
            total += self._written(batch, drawn, rounded=rounded)
            drawn_by_all = drawn_by_all + drawn.sum(1, keepdim=True)
        if common is not None:
            total -= self._written(common, drawn_by_all)
        return self._scaled(total)

    def _read(self, features: Features, own: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
        return convolve(features, own, self.kernel, self.padding, rounded=rounded)

    def _written(self, features: Features, drawn: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
        """The adjoint of `_read`."""
        return adjoint(features, drawn, self.kernel, self.padding, rounded=rounded)

    def _scaled(self, gradient: torch.Tensor) -> torch.Tensor:
        return (gradient * self.found.scale[:, None]).view(len(gradient), self.kernel**2, -1)


def _conjugate_gradients(problem: _Problem) -> tuple[torch.Tensor, int]:
    """All targets side by side, each until it has converged: what comes of one does not depend on the others."""
    residual = problem.right()
    found = torch.zeros_like(residual)
    solution = torch.zeros_like(residual)
    direction = conditioned = problem.precondition(residual)
    power = _dot(residual, conditioned)
    left = torch.arange(len(power), device=power.device)
    #: By how much each of the last steps lowered the objective.
    falls = torch.full((WINDOW, len(power)), torch.inf, dtype=torch.float64, device=power.device)
    for step in range(MOST_STEPS):
        if bool((power < 0).any()):
            raise PosbenchError("the linear readout's penalty is too small for float32: give a larger one")
        done = (falls.sum(0) <= TOLERANCE * problem.variance[left]) | (power == 0)
        if bool(done.any()):
            found[..., left[done]] = solution[..., done]
            solution, residual, direction, power, left, falls = (
                part[..., ~done] for part in (solution, residual, direction, power, left, falls)
            )
        if not len(left):
            return found, step
        product_ = problem.multiply(direction)
        length = power / _dot(direction, product_)
        # Each step lowers the objective by α rᵀz; what the last few did bounds what is still to be had.
        falls = torch.cat([falls[1:], (length * power)[None]])
        solution = solution + direction * length.float()
        residual = residual - product_ * length.float()
        conditioned = problem.precondition(residual)
        before, power = power, _dot(residual, conditioned)
        direction = conditioned + direction * (power / before).float()
    raise PosbenchError(f"the linear readout has not converged within {MOST_STEPS} steps")


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of each target, float64."""
    return (a * b).sum(dim=(0, 1), dtype=torch.float64)
