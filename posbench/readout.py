"""The linear probe: ridge regression from standardised features to target maps, by conjugate gradients.

The readout is a k×k convolution over all taps, aligned to one grid, without padding unless it is asked for. Its Gram
matrix would have (k²C)² entries and cost many times the network itself; here it is only ever multiplied by, as
`posbench.mixing` does it. `q` stands for the k·k·targets maps that are mixed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from posbench.errors import PosbenchError
from posbench.features import Features
from posbench.mixing import Weight, by_tap, gather, mix, resize_maps, resizer, scatter, unmix

#: A target is done once its objective has fallen, over `WINDOW` steps together, by less than this share of its
#: variance. As much is then left to be had, which moves rank correlations on unseen photographs by some .001.
TOLERANCE = 1e-4
WINDOW = 4
MOST_STEPS = 500
#: How many values are visited at once, and how many cells of the grid at least: enough that the cores do not idle
#: between pieces, and few enough that what is made of them is still in the cache when it is read.
AT_ONCE, CELLS = 2**22, 2**14
#: How many cells of the grid, over all images, tell the preconditioner how channels vary together.
SAMPLED_CELLS = 8192
#: How many channels of a tap it looks at together. More cost more and help less: so many cells tell little of them.
BLOCK = 512
#: How many random mixtures of channels tell it how neighbouring cells vary together.
MIXTURES = 16
#: Channels whose mean is this many standard deviations from zero are shifted there before anything is summed: float32
#: sums would otherwise hold little but the mean.
LOPSIDED = 30
#: A channel whose standard deviation is below this share of its magnitude is constant up to rounding.
CONSTANT = 1e-5


@dataclass(frozen=True)
class LinearReadout:
    """A fitted linear readout.

    Attributes:
        weight: one tensor a tap, float32 [channels, q], for features in their own scale.
        bias: float32 [targets].
        kernel: k.
        padding: cells of zeros around the aligned features.
        steps: the conjugate-gradient steps that the fit took.
    """

    weight: Weight
    bias: torch.Tensor
    kernel: int
    padding: int
    steps: int

    def predict(self, features: Features) -> torch.Tensor:
        """The drawn maps, float32 [n, targets, side, side] with side = grid + 2·padding − k + 1."""
        maps = [gather(mix(batch, self.weight), self.kernel, self.padding) for batch in _batches(features)]
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
        features: of the training images.
        targets: float32 [targets, side, side] with side = grid + 2·padding − kernel + 1; NaN at cells of which nothing
            is asked, the same ones for all targets. Channels are standardised over all cells nonetheless.
        kernel: k, odd.
        penalty: λ > 0.
        padding: cells of zeros around the aligned features, in their own scale and not the standardised one, as a
            convolution on them would add.

    Raises:
        PosbenchError: if it has not converged within 500 steps.

    Source:
        Hoerl & Kennard, Technometrics 1970; Hestenes & Stiefel 1952 for the solver and its estimate of the error.
    """
    problem = _Problem(features, targets, kernel, penalty, padding)
    solution, steps = _conjugate_gradients(problem)
    weight = problem.unscaled(solution)
    mean = Features(tuple(map(torch.add, problem.mean.taps, problem.shift)), features.grid)
    drawn = problem.asked_mean(gather(mix(mean, weight), kernel, padding))
    return LinearReadout(weight, targets.nanmean(dim=(1, 2)) - drawn.flatten(), kernel, padding, steps)


class _Problem:
    """The normal equations (XᵀX + λN) w = Xᵀy of all targets, X being the N standardised patches that are asked about,
    centred.

    Weights are held as one tensor [C, q] over the channels of all taps together.
    """

    def __init__(self, features: Features, targets: torch.Tensor, kernel: int, penalty: float, padding: int) -> None:
        # What is shifted is no longer zero where padding is.
        self.shift = tuple(torch.zeros_like(part) for part in _shift(features)) if padding else _shift(features)
        self.features, self.kernel, self.padding = features, kernel, padding
        self.mean, self.scale, covariances = _statistics(features, self.shift)
        unasked = targets.isnan()
        if bool((unasked != unasked[:1]).any()):
            raise ValueError("the targets must hold NaN at the same cells")
        #: 1 for a cell of which something is asked, else 0, float32 [side, side].
        self.asked = (~unasked[0]).float()
        self.rows = len(features) * int(self.asked.sum())
        self.penalty = penalty * self.rows
        centred = (targets - targets.nanmean(dim=(1, 2), keepdim=True)).nan_to_num()[:, None]
        self.variance = centred.square().sum(dim=(1, 2, 3)).double() * len(features)
        # Every image is to be answered with the same map, so only the mean image matters here.
        right = unmix(self.mean, scatter(centred, kernel, features.grid, padding))
        self.right = right * self.scale[:, None] * len(features)
        self._blocks = [torch.linalg.eigh(covariance) for covariance in covariances]
        self._cell_values, self._cell_vectors = torch.linalg.eigh(_neighbours(features, self.shift, self.scale, kernel))

    def unscaled(self, weight: torch.Tensor) -> Weight:
        """Weights for features in their own scale, one tensor a tap."""
        return by_tap(weight * self.scale[:, None], self.features)

    def asked_mean(self, drawn: torch.Tensor) -> torch.Tensor:
        """The mean of maps [targets, n, side, side] over what is asked, [targets, 1, 1, 1]."""
        return (drawn * self.asked).sum(dim=(1, 2, 3), keepdim=True) / (drawn.shape[1] * self.asked.sum())

    def multiply(self, weight: torch.Tensor) -> torch.Tensor:
        """(XᵀX + λN) w, in one visit to the features."""
        own = self.unscaled(weight)
        # Centring the columns of X is the same as centring what it draws.
        offset = self.asked_mean(gather(mix(self.mean, own), self.kernel, self.padding))
        total = torch.zeros_like(weight)
        for batch in _batches(self.features, self.shift):
            drawn = (gather(mix(batch, own), self.kernel, self.padding) - offset) * self.asked
            total += unmix(batch, scatter(drawn, self.kernel, batch.grid, self.padding))
        return total * self.scale[:, None] + self.penalty * weight

    def precondition(self, residual: torch.Tensor) -> torch.Tensor:
        """Solve with rows · (channel covariance ⊗ neighbour covariance) + λN in place of the true matrix, taking
        channels of different blocks for independent."""
        parts = torch.split(residual, [len(values) for values, _ in self._blocks])
        return torch.cat([self._solved(part, *block) for part, block in zip(parts, self._blocks, strict=True)])

    def _solved(self, residual: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        rotated = torch.einsum(
            "ck,cqt,qj->kjt", vectors, residual.view(len(residual), self.kernel**2, -1), self._cell_vectors
        )
        spread = values.clamp(min=0)[:, None] * self._cell_values.clamp(min=0)[None, :]
        rotated /= (self.rows * spread + self.penalty)[:, :, None]
        return torch.einsum("ck,kjt,qj->cqt", vectors, rotated, self._cell_vectors).flatten(1)


def _conjugate_gradients(problem: _Problem) -> tuple[torch.Tensor, int]:
    """All targets side by side, each until it has converged: what comes of one does not depend on the others."""
    targets = len(problem.variance)

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum(dim=(0, 1), dtype=torch.float64)

    def applied(function: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
        return function(weight.flatten(1)).view_as(weight)

    residual = problem.right.view(len(problem.right), -1, targets)
    found = torch.zeros_like(residual)
    solution = torch.zeros_like(residual)
    direction = conditioned = applied(problem.precondition, residual)
    power = dot(residual, conditioned)
    left = torch.arange(targets, device=power.device)
    #: By how much each of the last steps lowered the objective.
    falls = torch.full((WINDOW, targets), torch.inf, dtype=torch.float64, device=power.device)
    for step in range(MOST_STEPS):
        done = (falls.sum(0) <= TOLERANCE * problem.variance[left]) | (power <= 0)
        if bool(done.any()):
            found[..., left[done]] = solution[..., done]
            solution, residual, direction, power, left, falls = (
                part[..., ~done] for part in (solution, residual, direction, power, left, falls)
            )
        if not len(left):
            return found.flatten(1), step
        product_ = applied(problem.multiply, direction)
        length = power / dot(direction, product_)
        # Each step lowers the objective by α rᵀz; what the last few did bounds what is still to be had.
        falls = torch.cat([falls[1:], (length * power)[None]])
        solution = solution + direction * length.float()
        residual = residual - product_ * length.float()
        conditioned = applied(problem.precondition, residual)
        before, power = power, dot(residual, conditioned)
        direction = conditioned + direction * (power / before).float()
    raise PosbenchError(f"the linear readout has not converged within {MOST_STEPS} steps")


def _batches(features: Features, shift: Sequence[torch.Tensor] | None = None) -> Iterator[Features]:
    """The features in pieces, less the shift of each tap."""
    values = sum(tap[0].numel() for tap in features.taps)
    for batch in features.batches(max(1, AT_ONCE // values, CELLS // features.grid**2)):
        yield batch if shift is None else _shifted(batch, shift)


def _shift(features: Features) -> tuple[torch.Tensor, ...]:
    """For each tap, what to take from its channels, float32 [channels]: nothing, or about their mean."""
    shifts = []
    for tap in features.of_images(slice(8)).taps:
        spread, mean = torch.std_mean(tap.double(), dim=(0, 1, 2), correction=0)
        lopsided = bool((mean.abs() > LOPSIDED * spread).any())
        shifts.append((mean if lopsided else torch.zeros_like(mean)).float())
    return tuple(shifts)


def _shifted(features: Features, shift: Sequence[torch.Tensor]) -> Features:
    """The features less the shift; taps that it leaves alone share their memory."""
    pairs = zip(features.taps, shift, strict=True)
    return Features(tuple(tap - less if bool(less.any()) else tap for tap, less in pairs), features.grid)


def _statistics(features: Features, shift: Sequence[torch.Tensor]) -> tuple[Features, torch.Tensor, list[torch.Tensor]]:
    """What standardising needs, over all images and the cells of the aligned grid, in one visit.

    Args:
        features: before they are shifted.
        shift: what is taken from each channel of a tap, against which a constant is told from one that varies.

    Returns:
        The mean image; one over the standard deviation of each channel, float32 [C], 0 for a constant channel; and the
        correlation of the channels within each block, estimated from a seeded sample of cells. Blocks are of one tap
        and of `BLOCK` channels at most, in the order of the channels.
    """
    grid, device = features.grid, features.taps[0].device
    resizers = [tuple(resizer(length, grid, tap) for length in tap.shape[1:3]) for tap in features.taps]
    sums = [torch.zeros(tap.shape[1:], dtype=torch.float64, device=device) for tap in features.taps]
    squares = [torch.zeros(tap.shape[3], dtype=torch.float64, device=device) for tap in features.taps]
    per_image = min(grid * grid, max(1, SAMPLED_CELLS // len(features)))
    generator = torch.Generator().manual_seed(0)
    across = min(grid, max(1, round(per_image**0.5)))
    down = min(grid, max(1, per_image // across))
    sample = []
    for batch in _batches(features, shift):
        ys, xs = (torch.randperm(grid, generator=generator)[:count].to(device) for count in (down, across))
        cells = []
        for i, (tap, (rows, columns)) in enumerate(zip(batch.taps, resizers, strict=True)):
            values = tap.float()
            sums[i] += values.sum(0)
            # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
            aligned = tap.shape[1:3] == (grid, grid)
            twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
            squares[i] += (values * twice).sum(dim=(0, 1, 2))
            cells.append(resize_maps(values, rows[ys], columns[xs]).flatten(0, 2))
        sample.append(torch.cat(cells, dim=1))
    count = len(features)
    mean = Features(tuple((total / count).float()[None] for total in sums), grid)
    centre = [
        resize_maps(tap, *pair).double().mean(dim=(0, 1, 2)) for tap, pair in zip(mean.taps, resizers, strict=True)
    ]
    power = torch.cat([total / (count * grid * grid) for total in squares])
    spread = (power - torch.cat(centre).square()).clamp(min=0).sqrt()
    varies = spread > CONSTANT * (power.sqrt() + torch.cat(list(shift)).abs())
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0).float()
    standardised = (torch.cat(sample) - torch.cat(centre).float()) * scale
    blocks = [part for tap in by_tap(standardised.T, features) for part in torch.split(tap, BLOCK)]
    return mean, scale, [part @ part.T / len(standardised) for part in blocks]


def _neighbours(features: Features, shift: Sequence[torch.Tensor], scale: torch.Tensor, kernel: int) -> torch.Tensor:
    """How the k² cells under the kernel vary together, averaged over standardised channels: float32 [k², k²].

    Measured on random mixtures of the channels, whose covariance is that average in expectation.
    """
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(len(scale), MIXTURES, generator=generator).to(scale) * scale[:, None]
    mixed = mix(_shifted(features.of_images(slice(24)), shift), by_tap(mixture, features))
    mixed = mixed - mixed.mean(dim=(1, 2, 3), keepdim=True)
    side = features.grid - kernel + 1
    shifted = [mixed[..., y : y + side, x : x + side].flatten() for y, x in product(range(kernel), repeat=2)]
    patches = torch.stack(shifted)
    covariance = patches @ patches.T / patches.shape[1]
    return covariance / covariance.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
