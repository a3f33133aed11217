"""How many maps of position a linear readout can draw from features, whatever the map: the position spectrum.

The derivation is in docs/position-spectrum.md; its symbols are used here. P is the number of cells of the aligned
grid, C the number of channels of all taps together, and features are centred and scaled to unit variance over all cells
and all training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from posbench.builtin.readouts.aligned_conv import by_tap, resize_maps, resizer
from posbench.builtin.readouts.standardize import CONSTANT
from posbench.plugin.features import Features

#: About how many cells of the grid, over all images, tell how channels vary together around their mean at a position:
#: so many, or so many a channel if that is more. Too few understate what channels can vary by, and overstate modes.
SAMPLED_CELLS, SAMPLED_A_CHANNEL = 8192, 8
#: How many images are looked at together.
BATCH = 16


@dataclass(frozen=True)
class PositionModes:
    """The position maps that a linear readout can draw from features, and how much of each.

    Attributes:
        grid: the side of the aligned grid; P = grid².
        spectrum: float64 [P], in [0, 1), descending: the eigenvalues of S, that is how much of each mode is drawn on
            the training images. Biased upwards, since the noise of these images counts as position: see `shares`.
        maps: float64 [P, P], a column a mode, orthonormal, in the order of `spectrum`.
        weight: float64 [C, P], for features in their own scale: column p is the readout fitted to the map that is 1 at
            cell p and 0 elsewhere, so that `weight @ y` is the one fitted to the map y.
        centre: float64 [C], each channel's mean over positions and training images.
    """

    grid: int
    spectrum: torch.Tensor
    maps: torch.Tensor
    weight: torch.Tensor
    centre: torch.Tensor

    @torch.inference_mode()
    def read(self, test: Features) -> torch.Tensor:
        """The effective number of position modes that each image shows, float64 [n].

        Every map of an orthonormal basis is asked of the readout; what is drawn of each, along itself, is summed. The
        sum is the same for any basis. It is linear in the image, and on one image it may be of any size and sign. Its
        expectation over images that were not trained on is 0 where features carry no position.
        """
        # The adjoint of resizing, so that no feature has to be brought to the grid.
        answers = [
            resize_maps(part.T.reshape(1, self.grid, self.grid, -1), rows.T, columns.T).flatten()
            for part, (rows, columns) in zip(by_tap(self.weight, test), _resizers(test), strict=True)
        ]
        return torch.cat(
            [
                torch.stack([tap.flatten(1) @ answer for tap, answer in zip(taps, answers, strict=True)]).sum(0)
                for taps in self._centred(test)
            ]
        )

    @torch.inference_mode()
    def shares(self, test: Features, count: int) -> torch.Tensor:
        """How much of each of the leading modes is drawn on each image, float64 [n, count].

        A mode's share is uᵀd, where u is its map and d what the readout fitted to u draws on the image. Over all P
        modes shares sum to `read`. Their mean over unseen images is what `spectrum` is without its bias.
        """
        maps = self.maps[:, :count]
        parts, resizers = by_tap(self.weight @ maps, test), _resizers(test)
        shares = []
        for taps in self._centred(test):
            drawn = [
                resize_maps(tap @ part, rows, columns).flatten(1, 2)
                for tap, part, (rows, columns) in zip(taps, parts, resizers, strict=True)
            ]
            shares.append((torch.stack(drawn).sum(0) * maps).sum(1))
        return torch.cat(shares)

    def leading(self, count: int) -> torch.Tensor:
        """The maps of the leading modes, float32 [count, grid, grid], each of unit norm.

        The first cell in reading order with at least half of a map's largest magnitude is positive.
        """
        maps = self.maps[:, :count].T
        large = maps.abs() >= maps.abs().amax(1, keepdim=True) / 2
        first = maps.gather(1, large.int().argmax(1, keepdim=True))
        return (maps * first.sign()).float().view(-1, self.grid, self.grid)

    def _centred(self, test: Features) -> Iterator[list[torch.Tensor]]:
        """Some images at a time, the taps less the channels' training means, float64 [n, h, w, channels] each."""
        centres = by_tap(self.centre, test)
        for batch in test.batches(BATCH):
            yield [tap.double() - centre for tap, centre in zip(batch.taps, centres, strict=True)]


@torch.inference_mode()
def fit_modes(train: Features, *, penalty: float = 1.0) -> PositionModes:
    """What a 1×1 readout with a ridge penalty can draw of any map, from features of the training images.

    Each readout minimises what `readout.fit_ridge` minimises with kernel 1: the mean of (map − drawing)² over cells and
    images + penalty · Σ weight², on standardised channels, with a free bias. Constant channels take no part.

    With B [P, C] the mean features of each cell, over √P, and W [C, C] how features vary around them, what is drawn of
    a map on average is its product with S = B (BᵀB + W + λI)⁻¹ Bᵀ = Q (I + Q)⁻¹, where Q = B (W + λI)⁻¹ Bᵀ. B is of all
    cells of all images, W of a sample of cells.

    Args:
        train: features of the training images, at least one.
        penalty: λ > 0.
    """
    images = _mean_images(train)
    centre, means = _on_grid(images, train)
    variance, within = _within(train, images)
    spread = (variance + means.square().mean(0)).sqrt()
    varies = spread > CONSTANT * torch.hypot(spread, centre)
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0)
    signal = means * scale / train.grid
    noise = within * scale[:, None] * scale
    noise.diagonal().add_(penalty)
    solved = torch.cholesky_solve(signal.T, torch.linalg.cholesky(noise))
    ratios, maps = _modes(signal @ solved)
    # Rounding leaves what is 0 on either side of it.
    ratios, maps = ratios.flip(0).clamp(min=0), maps.flip(1)
    weight = solved @ (maps / (1 + ratios)) @ maps.T
    return PositionModes(train.grid, ratios / (1 + ratios), maps, weight * scale[:, None] / train.grid, centre)


def _modes(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix, found on one thread.

    Its steps are too short to share: on cores that others use too, two threads wait for each other a hundred times as
    long as one takes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(matrix)
    finally:
        torch.set_num_threads(threads)
    return values, vectors


def _resizers(features: Features) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each tap the matrices that resize its rows and its columns, float64 [grid, height] and [grid, width]."""
    grid = features.grid
    return [
        (resizer(tap.shape[1], grid, tap.device).double(), resizer(tap.shape[2], grid, tap.device).double())
        for tap in features.taps
    ]


def _mean_images(train: Features) -> list[torch.Tensor]:
    """Each tap's mean over images, float64 [h, w, channels]."""
    totals = [torch.zeros(tap.shape[1:], dtype=torch.float64, device=tap.device) for tap in train.taps]
    for batch in train.batches(BATCH):
        for total, tap in zip(totals, batch.taps, strict=True):
            total += tap.sum(0, dtype=torch.float64)
    return [total / len(train) for total in totals]


def _on_grid(images: Sequence[torch.Tensor], train: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean images on the grid, as each channel's mean [C] and what every cell differs from it [P, C], both float64."""
    centres, means = [], []
    for image, (rows, columns) in zip(images, _resizers(train), strict=True):
        # What a channel has everywhere is taken away first, lest resizing round it differently from cell to cell.
        common = image.mean((0, 1))
        differences = resize_maps((image - common)[None], rows, columns).flatten(0, 2)
        rest = differences.mean(0)
        centres.append(common + rest)
        means.append(differences - rest)
    return torch.cat(centres), torch.cat(means, 1)


def _within(train: Features, images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """How features vary around their mean at each cell: each channel's variance [C] and the covariance [C, C], float64.

    Variances are of all cells of all images. The covariance is of a lattice of cells in each image, every `stride`-th
    along either axis; from image to image its origin goes through all stride² places, so each cell counts equally.
    """
    sampled = max(SAMPLED_CELLS, SAMPLED_A_CHANNEL * train.channels)
    stride = max(1, round((len(train) * train.grid**2 / sampled) ** 0.5))
    stride = min(stride, train.grid)
    resizers = [(rows.float(), columns.float()) for rows, columns in _resizers(train)]
    squares = [torch.zeros(tap.shape[3], dtype=torch.float64, device=tap.device) for tap in train.taps]
    products = torch.zeros(train.channels, train.channels, device=train.taps[0].device)
    count = 0
    for origin in range(min(stride**2, len(train))):
        down, across = divmod(origin, stride)
        cells = []
        for i, (tap, image, (rows, columns)) in enumerate(zip(train.taps, images, resizers, strict=True)):
            apart = tap[origin :: stride**2].float() - image.float()
            # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
            aligned = apart.shape[1:3] == (train.grid, train.grid)
            twice = apart if aligned else resize_maps(apart, rows.T @ rows, columns.T @ columns)
            squares[i] += (apart * twice).sum((0, 1, 2), dtype=torch.float64)
            cells.append(resize_maps(apart, rows[down::stride], columns[across::stride]).flatten(0, 2))
        sample = torch.cat(cells, 1)
        products.addmm_(sample.T, sample)
        count += len(sample)
    return torch.cat(squares) / (len(train) * train.grid**2), products.double() / count
