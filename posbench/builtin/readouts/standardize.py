"""Tells the mean image of features from what departs from it, and finds the scale of each channel.

A readout is to answer all images with the same map: it draws from their mean image, and the departures are what it has
to be proof against. They are told apart for precision, too: a departure may be rounded, and the fit stays what it is,
while features rounded as a whole lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from posbench.builtin.readouts.aligned_conv import resize_maps, resized, resizer
from posbench.core.offload import fits_in_memory
from posbench.plugin.features import Features, allocate_taps

#: How many values are visited at once, and how many cells of the grid at least: enough that the cores do not idle
#: between pieces, and few enough that what is made of them is still in the cache when it is read.
AT_ONCE, CELLS = 2**22, 2**15
#: How many images are summed in float32 at most, which adds no more error than they have; sums of all are float64.
TOGETHER = 8
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
        rounded: whether departures are bfloat16.
    """

    features: Features
    level: tuple[torch.Tensor, ...]
    image: Features
    scale: torch.Tensor
    sample: torch.Tensor
    rounded: bool
    _kept: Features | None

    def parts(self) -> Iterator[Features]:
        """What is multiplied to multiply departures, some images at a time: they themselves, if they are rounded.

        Else features as they are, which hold the mean image, too: to take it from each would cost as much as to
        multiply it, and it can be taken from what comes of it as well.
        """
        if not self.rounded:
            yield from pieces(self.features)
            return
        for numbers in _slices(self.features):
            if self._kept is not None:
                yield self._kept.of_images(numbers)
            else:
                made = self.departures_of(numbers)
                yield Features(tuple(tap.bfloat16() for tap in made.taps), made.grid)

    @property
    def common(self) -> Features | None:
        """The mean image, if all of `parts` hold it."""
        return None if self.rounded else self.mean

    def departures_of(self, numbers: slice | Sequence[int]) -> Features:
        """How the images of these numbers depart from the mean image, float32."""
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
    """Tell features apart, in two visits, or three if rounded departures are kept.

    Args:
        features: of n images.
        centring: whether a channel's mean is to stand apart from the mean image: not where zeros are added around it.
        rounding: whether departures may be bfloat16, if the features are.
    """
    means, averages, variances = zip(*(_moments(tap, features.grid) for tap in features.taps), strict=True)
    level = tuple((average if centring else torch.zeros_like(average)).float() for average in averages)
    # Taken while it is float64: float32 would hold little else of a channel far from zero.
    image = Features(tuple((mean - less).float() for mean, less in zip(means, level, strict=True)), features.grid)
    spread = torch.cat(variances).clamp(min=0).sqrt()
    varies = spread > CONSTANT * torch.cat(averages).abs()
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0).float()
    sample = _sample(features, level, image) * scale
    rounded = rounding and features.taps[0].dtype == torch.bfloat16
    kept = _kept(features, level, image) if rounded else None
    return Standardised(features, level, image, scale, sample, rounded, kept)


def _slices(features: Features) -> Iterator[slice]:
    values = sum(tap[0].numel() for tap in features.taps)
    return _steps(len(features), max(AT_ONCE // values, CELLS // features.grid**2))


def _steps(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(first, first + size) for first in range(0, count, size))


def _moments(tap: torch.Tensor, grid: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mean image, [1, height, width, channels], and the mean and variance of channels on the grid, all float64."""
    rows, columns = (resizer(length, grid, tap.device) for length in tap.shape[1:3])
    aligned = tap.shape[1:3] == (grid, grid)
    # Without it, float32 would hold little of how a channel far from zero varies.
    near = tap[:1].float().mean(dim=(0, 1, 2))
    total = torch.zeros_like(tap[:1], dtype=torch.float64)
    squares = torch.zeros_like(near, dtype=torch.float64)
    for numbers in _steps(len(tap), min(TOGETHER, AT_ONCE // tap[0].numel())):
        values = tap[numbers].float() - near
        total += values.sum(0)
        # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
        twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
        squares += (values * twice).sum(dim=(0, 1, 2))
    mean = total / len(tap)
    average = _on_grid(mean, grid).mean(dim=(0, 1, 2))
    return mean + near, average + near, squares / (len(tap) * grid**2) - average.square()


def _on_grid(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """Resized in float32, float64."""
    return resized(maps.float(), grid).double()


def _kept(features: Features, level: Sequence[torch.Tensor], image: Features) -> Features | None:
    """Departures in bfloat16, to be kept from visit to visit, unless they are too many."""
    if not fits_in_memory(sum(tap.numel() for tap in features.taps) * torch.bfloat16.itemsize):
        return None
    taps = features.taps
    kept = allocate_taps([tap.shape for tap in taps], [torch.bfloat16] * len(taps), taps[0].device)
    for tap, less, mean, room in zip(taps, level, image.taps, kept, strict=True):
        for numbers in _steps(len(tap), min(TOGETHER, AT_ONCE // tap[0].numel())):
            room[numbers] = tap[numbers].float() - less - mean
    return Features(tuple(kept), features.grid)


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
                rows, columns = (resizer(length, grid, tap.device) for length in tap.shape[1:3])
                seen, known = (resize_maps(maps, rows[ys], columns[xs]) for maps in (tap[numbers].float(), image))
                cells.append(seen - level - known)
        sample.append(torch.cat(cells, dim=3).flatten(0, 2))
    return torch.cat(sample)
