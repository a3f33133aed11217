"""The position spectrum: how many position maps a linear readout can decode from features.

The derivation is in docs/position-spectrum.md, with the same symbols. P is the number of cells of the aligned grid, C
that of channels of all taps; features are centred and scaled to unit variance over all cells and training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from posbench import Features
from posbench.builtin.readouts.aligned_conv import by_tap, resize_maps, resize_matrices
from posbench.builtin.readouts.standardize import CONSTANT

#: The approximate number of grid cells, over all images, from which the covariance of channels around their mean at a
#: position is estimated: in all, or for each channel if that is more. Too few underestimate it and overestimate modes.
SAMPLED_CELLS, SAMPLED_PER_CHANNEL = 8192, 8
#: The images in a batch.
BATCH = 16


@dataclass(frozen=True)
class PositionModes:
    """The position maps that a linear readout can decode from features, and the share of each that it decodes.

    Attributes:
        grid: the side of the aligned grid; P = grid².
        spectrum: float64 [P], in [0, 1), descending: the eigenvalues of S, i.e. the share of each mode that is decoded
            from the training images. Biased upwards, since noise of these images counts as position: see `shares`.
        maps: float64 [P, P], a column a mode, orthonormal, in the order of `spectrum`.
        weight: float64 [C, P], for unstandardised features. Column p is the readout fitted to the map that is 1 at cell
            p and 0 elsewhere, so `weight @ y` is the readout fitted to the map y.
        centre: float64 [C], each channel's mean over positions and training images.
    """

    grid: int
    spectrum: torch.Tensor
    maps: torch.Tensor
    weight: torch.Tensor
    centre: torch.Tensor

    @torch.inference_mode()
    def read(self, test: Features) -> torch.Tensor:
        """Return the effective number of position modes that each image shows, float64 [n].

        That is the sum, over any orthonormal basis of maps, of the scalar product of each map with its prediction. It
        is linear in the image, and for a single image it may have any size and sign. Over images that were not trained
        on, its expectation is 0 if features carry no position.
        """
        # The adjoint of resizing is applied to the weights, so no feature has to be resized.
        weights = [
            resize_maps(part.T.reshape(1, self.grid, self.grid, -1), rows.T, columns.T).flatten()
            for part, (rows, columns) in zip(by_tap(self.weight, test), _resize_matrices(test), strict=True)
        ]
        numbers = []
        for taps in self._centred(test):
            parts = [tap.flatten(1) @ weight for tap, weight in zip(taps, weights, strict=True)]
            numbers.append(torch.stack(parts).sum(0))
        return torch.cat(numbers)

    @torch.inference_mode()
    def shares(self, test: Features, count: int) -> torch.Tensor:
        """Return the share of each leading mode that is decoded from each image, float64 [n, count].

        A mode's share is uᵀd, where u is its map and d the prediction of the readout fitted to u. The shares of all P
        modes sum to `read`. Their mean over held-out images is an unbiased version of `spectrum`.
        """
        maps = self.maps[:, :count]
        parts, matrices = by_tap(self.weight @ maps, test), _resize_matrices(test)
        shares = []
        for taps in self._centred(test):
            predicted = [
                resize_maps(tap @ part, rows, columns).flatten(1, 2)
                for tap, part, (rows, columns) in zip(taps, parts, matrices, strict=True)
            ]
            shares.append((torch.stack(predicted).sum(0) * maps).sum(1))
        return torch.cat(shares)

    def leading(self, count: int) -> torch.Tensor:
        """Return the maps of the leading modes, float32 [count, grid, grid], each of unit norm.

        Signs are such that the first cell, row by row, with at least half of the largest magnitude is positive.
        """
        maps = self.maps[:, :count].T
        large = maps.abs() >= maps.abs().amax(1, keepdim=True) / 2
        first = maps.gather(1, large.int().argmax(1, keepdim=True))
        return (maps * first.sign()).float().view(-1, self.grid, self.grid)

    def _centred(self, test: Features) -> Iterator[list[torch.Tensor]]:
        """Yield batches of the taps minus the channels' training means, float64 [n, h, w, channels] each."""
        centres = by_tap(self.centre, test)
        for batch in test.batches(BATCH):
            yield [tap.double() - centre for tap, centre in zip(batch.taps, centres, strict=True)]


@torch.inference_mode()
def fit_modes(train: Features, *, penalty: float = 1.0) -> PositionModes:
    """Compute what a 1×1 ridge readout can decode of any position map from the features of the training images.

    Each readout minimises the objective of `fit_ridge` with kernel 1: the mean of (map − prediction)² over cells and
    images + penalty · Σ weight², on standardised channels, with a free bias. Constant channels are ignored.

    Let B [P, C] be the mean features of each cell, divided by √P, and W [C, C] the covariance of features around them.
    The average prediction for a map is its product with S = B (BᵀB + W + λI)⁻¹ Bᵀ = Q (I + Q)⁻¹, where
    Q = B (W + λI)⁻¹ Bᵀ. B is computed from all cells of all images, W from a sample of cells. The
    penalty λ is above 0.
    """
    images = _mean_images(train)
    centre, means = _means_on_grid(images, train)
    variance, covariance = _variation(train, images)
    deviation = (variance + means.square().mean(0)).sqrt()
    varies = deviation > CONSTANT * torch.hypot(deviation, centre)
    scale = torch.where(varies, 1 / deviation.where(varies, torch.ones_like(deviation)), 0.0)
    signal = means * scale / train.grid
    noise = covariance * scale[:, None] * scale
    noise.diagonal().add_(penalty)
    solved = torch.cholesky_solve(signal.T, torch.linalg.cholesky(noise))
    ratios, maps = _eigenvectors(signal @ solved)
    # Rounding may make zeros negative.
    ratios, maps = ratios.flip(0).clamp(min=0), maps.flip(1)
    weight = solved @ (maps / (1 + ratios)) @ maps.T
    return PositionModes(train.grid, ratios / (1 + ratios), maps, weight * scale[:, None] / train.grid, centre)


def _eigenvectors(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eigenvalues, ascending, and the eigenvectors of a symmetric matrix, computed on one thread.

    Several threads would synchronise after each short step; on busy cores that takes a hundred times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(torch.linalg.eigh(matrix))
    finally:
        torch.set_num_threads(threads)


def _resize_matrices(features: Features) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return, for each tap, the matrices that resize rows and columns, float64 [grid, height] and [grid, width]."""
    matrices = (resize_matrices(tap, features.grid) for tap in features.taps)
    return [(rows.double(), columns.double()) for rows, columns in matrices]


def _mean_images(train: Features) -> list[torch.Tensor]:
    """Return each tap's mean over images, float64 [h, w, channels]."""
    totals = [torch.zeros(tap.shape[1:], dtype=torch.float64, device=tap.device) for tap in train.taps]
    for batch in train.batches(BATCH):
        for total, tap in zip(totals, batch.taps, strict=True):
            total += tap.sum(0, dtype=torch.float64)
    return [total / len(train) for total in totals]


def _means_on_grid(images: Sequence[torch.Tensor], train: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize mean images to the grid; return each channel's mean [C] and the cells minus that mean [P, C], float64."""
    centres, means = [], []
    for image, (rows, columns) in zip(images, _resize_matrices(train), strict=True):
        # The mean is subtracted first, since resizing would round it differently from cell to cell.
        common = image.mean((0, 1))
        differences = resize_maps((image - common)[None], rows, columns).flatten(0, 2)
        rest = differences.mean(0)
        centres.append(common + rest)
        means.append(differences - rest)
    return torch.cat(centres), torch.cat(means, 1)


def _variation(train: Features, images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the variance [C] and covariance [C, C] of features around their mean at each cell, float64.

    The variance is over all cells of all images. The covariance is over a lattice in each image, every `stride`-th cell
    along either axis. Its origin cycles through all stride² places, so each cell counts equally.
    """
    sampled = max(SAMPLED_CELLS, SAMPLED_PER_CHANNEL * train.channels)
    stride = min(max(1, round((len(train) * train.grid**2 / sampled) ** 0.5)), train.grid)
    matrices = [(rows.float(), columns.float()) for rows, columns in _resize_matrices(train)]
    squares = [torch.zeros(tap.shape[3], dtype=torch.float64, device=tap.device) for tap in train.taps]
    products = torch.zeros(train.channels, train.channels, device=train.taps[0].device)
    count = 0
    for origin in range(min(stride**2, len(train))):
        down, across = divmod(origin, stride)
        cells = []
        for i, (tap, image, (rows, columns)) in enumerate(zip(train.taps, images, matrices, strict=True)):
            residual = tap[origin :: stride**2].float() - image.float()
            # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
            aligned = residual.shape[1:3] == (train.grid, train.grid)
            twice = residual if aligned else resize_maps(residual, rows.T @ rows, columns.T @ columns)
            squares[i] += (residual * twice).sum((0, 1, 2), dtype=torch.float64)
            cells.append(resize_maps(residual, rows[down::stride], columns[across::stride]).flatten(0, 2))
        sample = torch.cat(cells, 1)
        products.addmm_(sample.T, sample)
        count += len(sample)
    return torch.cat(squares) / (len(train) * train.grid**2), products.double() / count
