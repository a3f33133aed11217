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
from posbench.mixing import resize_maps, resized, resizer
from posbench.spill import fits

#: How many values are visited at once, and how many cells of the grid at least: enough that the cores do not idle
#: between pieces, and few enough that what is made of them is still in the cache when it is read.
AT_ONCE, CELLS = 2**22, 2**14
#: How many values of a tap are at once where several things are made of each: what two cores hold close at hand.
CLOSE = 2**19
#: About how many cells of the grid are sampled, over all images; one an image at least.
SAMPLED_CELLS = 4096
#: A channel whose standard deviation is below this share of its magnitude is constant up to rounding.
CONSTANT = 1e-5


@dataclass(frozen=True)
class Standardised:
    """Features of n images, told apart; means and deviations are over all images and cells of the aligned grid.

    Attributes:
        features: as they are.
        level: for each tap what stands apart from the mean image, float32 [channels]: the channel's mean, or 0.
        image: the rest of the mean image, float32.
        scale: one over the standard deviation of each channel of all taps, float32 [C]; 0 for a constant channel.
        sample: how standardised channels depart from the mean image, at seeded cells of all images: float32 [m, C].
    """

    features: Features
    level: tuple[torch.Tensor, ...]
    image: Features
    scale: torch.Tensor
    sample: torch.Tensor
    _precision: torch.dtype
    _kept: Features | None

    def departures(self) -> Iterator[Features]:
        """How images depart from the mean image, some at a time."""
        for numbers in _slices(self.features):
            if self._kept is not None:
                yield self._kept.of_images(numbers)
            else:
                made = self.departures_of(numbers)
                yield Features(tuple(tap.to(self._precision) for tap in made.taps), made.grid)

    def departures_of(self, numbers: slice | Sequence[int]) -> Features:
        """The same of the images of these numbers, float32."""
        taps = zip(self.features.of_images(numbers).taps, self.level, self.image.taps, strict=True)
        return Features(tuple(tap.float() - level - image for tap, level, image in taps), self.features.grid)

    @property
    def mean(self) -> Features:
        """The mean image, float32."""
        return Features(tuple(map(torch.add, self.image.taps, self.level)), self.image.grid)


def pieces(features: Features) -> Iterator[Features]:
    """The features, some images at a time."""
    return map(features.of_images, _slices(features))


def standardise(features: Features, *, centring: bool = True, rounding: bool = False) -> Standardised:
    """Tell features apart, in three visits.

    Args:
        features: of n images.
        centring: whether a channel's mean is to stand apart from the mean image: not where zeros are added around it.
        rounding: whether departures may be bfloat16, if the features are.
    """
    taps = features.taps
    means = [_mean(tap) for tap in taps]
    averages = [_on_grid(mean, features.grid).mean(dim=(0, 1, 2)) for mean in means]
    level = tuple((average if centring else torch.zeros_like(average)).float() for average in averages)
    # Taken while it is float64: float32 would hold little else of a channel far from zero.
    image = Features(tuple((mean - less).float() for mean, less in zip(means, level, strict=True)), features.grid)
    precision = torch.bfloat16 if rounding and taps[0].dtype == torch.bfloat16 else torch.float32
    kept, rooms = _room(features, precision)
    parts = zip(taps, level, image.taps, rooms, strict=True)
    spread = torch.cat([_variance(*part, features.grid) for part in parts]).sqrt()
    varies = spread > CONSTANT * torch.cat(averages).abs()
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0).float()
    return Standardised(features, level, image, scale, _sample(features, level, image) * scale, precision, kept)


def _slices(features: Features) -> Iterator[slice]:
    values = sum(tap[0].numel() for tap in features.taps)
    return _steps(len(features), max(AT_ONCE // values, CELLS // features.grid**2))


def _steps(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(first, first + size) for first in range(0, count, size))


def _mean(tap: torch.Tensor) -> torch.Tensor:
    """Of all images, float64 [1, height, width, channels]."""
    total = torch.zeros_like(tap[:1], dtype=torch.float64)
    for numbers in _steps(len(tap), AT_ONCE // tap[0].numel()):
        total += tap[numbers].sum(0, dtype=torch.float64)
    return total / len(tap)


def _on_grid(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """Resized in float32, float64."""
    return resized(maps.float(), grid).double()


def _room(features: Features, precision: torch.dtype) -> tuple[Features | None, Sequence[torch.Tensor | None]]:
    """Where departures are kept from visit to visit, unless they are too many.

    Returns them with taps of one size as one tap, since few wide products take less time than many narrow ones; and the
    place of each tap's own.
    """
    if not fits(sum(tap.numel() for tap in features.taps) * precision.itemsize):
        return None, [None] * len(features.taps)
    wide, places = [], list[torch.Tensor]()
    for size, alike in groupby(features.taps, key=lambda tap: tap.shape[:3]):
        channels = [tap.shape[3] for tap in alike]
        wide.append(features.taps[0].new_empty(*size, sum(channels), dtype=precision))
        places.extend(torch.split(wide[-1], channels, dim=3))
    return Features(tuple(wide), features.grid), places


def _variance(
    tap: torch.Tensor, level: torch.Tensor, image: torch.Tensor, room: torch.Tensor | None, grid: int
) -> torch.Tensor:
    """Of each channel, float64: of the departures, which are put where there is room for them, and of the image."""
    rows, columns = (resizer(length, grid, tap) for length in tap.shape[1:3])
    aligned = tap.shape[1:3] == (grid, grid)
    total = torch.zeros(tap.shape[3], dtype=torch.float64, device=tap.device)
    for numbers in _steps(len(tap), (AT_ONCE if tap.is_cuda else CLOSE) // tap[0].numel()):
        values = tap[numbers].float() - level - image
        if room is not None:
            room[numbers] = values
        # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
        twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
        total += (values * twice).sum(dim=(0, 1, 2))
    return total / (len(tap) * grid**2) + _on_grid(image, grid).var(dim=(0, 1, 2), correction=0)


def _sample(features: Features, levels: Sequence[torch.Tensor], mean: Features) -> torch.Tensor:
    """Departures at some cells of all images, other ones from piece to piece: float32 [m, C]."""
    grid = features.grid
    per_image = min(grid * grid, max(1, SAMPLED_CELLS // len(features)))
    across = min(grid, max(1, round(per_image**0.5)))
    down = min(grid, max(1, per_image // across))
    generator = torch.Generator().manual_seed(0)
    sample = []
    for numbers in _slices(features):
        ys, xs = (torch.randperm(grid, generator=generator)[:size].to(levels[0].device) for size in (down, across))
        cells = []
        for tap, level, image in zip(features.taps, levels, mean.taps, strict=True):
            if tap.shape[1:3] == (grid, grid):
                at = (slice(None), ys[:, None], xs)
                cells.append(tap[numbers][at].float() - level - image[at])
            else:
                rows, columns = (resizer(length, grid, tap) for length in tap.shape[1:3])
                cells.append(resize_maps(tap[numbers].float() - level - image, rows[ys], columns[xs]))
        sample.append(torch.cat(cells, dim=3).flatten(0, 2))
    return torch.cat(sample)
