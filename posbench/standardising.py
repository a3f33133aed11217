"""Tells the mean image of features from what departs from it, and finds the scale of each channel.

A readout is to answer all images with the same map: it draws from their mean image, and the departures are what it has
to be proof against. They are told apart for precision, too: a departure may be rounded, and the fit stays what it is,
while features rounded as a whole lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from posbench.features import Features
from posbench.machine import has_bf16
from posbench.mixing import resize_maps, resizer
from posbench.spill import IN_MEMORY

#: How many values are visited at once, and how many cells of the grid at least: enough that the cores do not idle
#: between pieces, and few enough that what is made of them is still in the cache when it is read.
AT_ONCE, CELLS = 2**22, 2**14
#: How many values of a tap are at once where several things are made of each: what two cores hold close at hand.
CLOSE = 2**19
#: About how many cells of the grid are sampled, over all images; one an image at least.
SAMPLED_CELLS = 4096
#: A channel whose standard deviation is below this share of its magnitude is constant up to rounding.
CONSTANT = 1e-5

#: The matrices that resize the rows and the columns of a tap to the grid.
Resizers = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Standardised:
    """Features of n images, told apart; means and deviations are over all images and cells of the aligned grid.

    Attributes:
        features: as they are.
        mean: the mean image, float32.
        image: the same, each channel less its mean, unless that was to stay.
        scale: one over the standard deviation of each channel of all taps, float32 [C]; 0 for a constant channel.
        sample: how standardised channels depart from the mean image, at seeded cells of all images: float32 [m, C].
    """

    features: Features
    mean: Features
    image: Features
    scale: torch.Tensor
    sample: torch.Tensor
    _precision: torch.dtype
    _kept: Features | None

    def departures(self) -> Iterator[Features]:
        """How images depart from the mean image, some at a time."""
        for numbers in _slices(self.features):
            if self._kept:
                yield self._kept.of_images(numbers)
            else:
                made = self.departures_of(numbers)
                yield Features(tuple(tap.to(self._precision) for tap in made.taps), made.grid)

    def departures_of(self, numbers: slice | Sequence[int]) -> Features:
        """The same of the images of these numbers, float32."""
        return _less(self.features.of_images(numbers), self.mean)


def pieces(features: Features) -> Iterator[Features]:
    """The features, some images at a time."""
    return map(features.of_images, _slices(features))


def standardise(features: Features, *, centring: bool = True, rounding: bool = False) -> Standardised:
    """Tell features apart, in three visits.

    Args:
        features: of n images.
        centring: whether `image` is to be centred: not where zeros are added around it.
        rounding: whether departures may be bfloat16, where the machine multiplies that faster than float32.
    """
    grid, taps = features.grid, features.taps
    resizers = [(resizer(tap.shape[1], grid, tap), resizer(tap.shape[2], grid, tap)) for tap in taps]
    means = [_mean(tap) for tap in taps]
    levels = [_resized(one, pair).mean(dim=(0, 1, 2)) for one, pair in zip(means, resizers, strict=True)]
    mean = Features(tuple(one.float() for one in means), grid)
    # Taken while it is float64: float32 would hold little else of a channel far from zero.
    image = Features(tuple((one - level).float() for one, level in zip(means, levels, strict=True)), grid)
    precision = torch.bfloat16 if rounding and has_bf16(taps[0].device.type) else torch.float32
    kept, rooms = _room(features, precision)
    variances = [_variance(*one) for one in zip(taps, mean.taps, image.taps, resizers, rooms, strict=True)]
    spread = torch.cat(variances).sqrt()
    varies = spread > CONSTANT * torch.cat(levels).abs()
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0).float()
    return Standardised(
        *(
            features,
            mean,
            image if centring else mean,
            scale,
            _sample(features, mean, resizers) * scale,
            precision,
            kept,
        )
    )


def _slices(features: Features) -> Iterator[slice]:
    values = sum(tap[0].numel() for tap in features.taps)
    return _steps(len(features), max(AT_ONCE // values, CELLS // features.grid**2))


def _steps(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(first, first + size) for first in range(0, count, size))


def _less(features: Features, mean: Features) -> Features:
    return Features(tuple(tap.float() - one for tap, one in zip(features.taps, mean.taps, strict=True)), features.grid)


def _resized(maps: torch.Tensor, resizers: Resizers) -> torch.Tensor:
    return resize_maps(maps, *(one.to(maps.dtype) for one in resizers))


def _mean(tap: torch.Tensor) -> torch.Tensor:
    """Of all images, float64 [1, height, width, channels]."""
    total = torch.zeros_like(tap[:1], dtype=torch.float64)
    for numbers in _steps(len(tap), AT_ONCE // tap[0].numel()):
        total += tap[numbers].float().sum(0)
    return total / len(tap)


def _room(features: Features, precision: torch.dtype) -> tuple[Features | None, Sequence[torch.Tensor | None]]:
    """Where departures are kept from visit to visit, unless they are so many that a disk holds the features.

    Returns them with taps of one size as one tap, since few wide products take less time than many narrow ones; and the
    place of each tap's own.
    """
    if any(tap.device.type == "cpu" and tap.nbytes > IN_MEMORY for tap in features.taps):
        return None, [None] * len(features.taps)
    wide, places = [], list[torch.Tensor]()
    for size, alike in groupby(features.taps, key=lambda tap: tap.shape[:3]):
        channels = [tap.shape[3] for tap in alike]
        wide.append(features.taps[0].new_empty(*size, sum(channels), dtype=precision))
        places.extend(torch.split(wide[-1], channels, dim=3))
    return Features(tuple(wide), features.grid), places


def _variance(
    tap: torch.Tensor, mean: torch.Tensor, image: torch.Tensor, resizers: Resizers, room: torch.Tensor | None
) -> torch.Tensor:
    """Of each channel, float64: of the departures, which are put where there is room for them, and of the image."""
    rows, columns = resizers
    aligned = len(rows) == rows.shape[1] and len(columns) == columns.shape[1]
    total = torch.zeros(tap.shape[3], dtype=torch.float64, device=tap.device)
    for numbers in _steps(len(tap), CLOSE // tap[0].numel()):
        values = tap[numbers].float() - mean
        if room is not None:
            room[numbers] = values
        # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
        twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
        total += (values * twice).sum(dim=(0, 1, 2))
    return total / (len(tap) * len(rows) * len(columns)) + _resized(image, resizers).double().square().mean((0, 1, 2))


def _sample(features: Features, mean: Features, resizers: Sequence[Resizers]) -> torch.Tensor:
    """Departures at some cells of all images, other ones from piece to piece: float32 [m, C]."""
    grid = features.grid
    per_image = min(grid * grid, max(1, SAMPLED_CELLS // len(features)))
    across = min(grid, max(1, round(per_image**0.5)))
    down = min(grid, max(1, per_image // across))
    generator = torch.Generator().manual_seed(0)
    found = []
    for numbers in _slices(features):
        ys, xs = (torch.randperm(grid, generator=generator)[:size].to(mean.taps[0].device) for size in (down, across))
        cells = []
        for tap, one, (rows, columns) in zip(features.taps, mean.taps, resizers, strict=True):
            if tap.shape[1:3] == (grid, grid):
                cells.append(tap[numbers][:, ys][:, :, xs].float() - one[:, ys][:, :, xs])
            else:
                cells.append(resize_maps(tap[numbers].float() - one, rows[ys], columns[xs]))
        found.append(torch.cat(cells, dim=3).flatten(0, 2))
    return torch.cat(found)
