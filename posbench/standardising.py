"""What standardising features takes: the mean image, the scale of each channel, and a sample of what varies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from posbench.features import Features
from posbench.mixing import resize_maps, resizer

#: How many values are visited at once, and how many cells of the grid at least: enough that the cores do not idle
#: between pieces, and few enough that what is made of them is still in the cache when it is read.
AT_ONCE, CELLS = 2**22, 2**14
#: About how many cells of the grid are sampled, over all images; one an image at least.
SAMPLED_CELLS = 4096
#: Channels whose mean is this many standard deviations from zero are shifted there before anything is summed: float32
#: sums would otherwise hold little but the mean.
LOPSIDED = 30
#: A channel whose standard deviation is below this share of its magnitude is constant up to rounding.
CONSTANT = 1e-5

#: For each tap what is taken from its channels, float32 [channels].
Shift = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Statistics:
    """Of n images, over the cells of the aligned grid.

    Attributes:
        shift: what was taken from the features before anything was summed.
        mean: their mean image, less the shift, float32.
        scale: one over the standard deviation of each channel of all taps, float32 [C]; 0 for a constant channel.
        sample: how standardised channels depart from the mean image, at seeded cells of all images: float32 [m, C].
    """

    shift: Shift
    mean: Features
    scale: torch.Tensor
    sample: torch.Tensor


def pieces(features: Features, shift: Shift | None = None) -> Iterator[Features]:
    """The features, some images at a time, less the shift."""
    values = sum(tap[0].numel() for tap in features.taps)
    for piece in features.batches(max(1, AT_ONCE // values, CELLS // features.grid**2)):
        yield piece if shift is None else shifted(piece, shift)


def shifted(features: Features, shift: Shift) -> Features:
    """The features less the shift; taps that it leaves alone share their memory."""
    pairs = zip(features.taps, shift, strict=True)
    return Features(tuple(tap - less if bool(less.any()) else tap for tap, less in pairs), features.grid)


def statistics(features: Features, *, shifting: bool = True) -> Statistics:
    """Standardise features, in one visit.

    Args:
        features: of n images.
        shifting: whether lopsided channels may be shifted.
    """
    shift = _shift(features) if shifting else tuple(tap.new_zeros(tap.shape[3]).float() for tap in features.taps)
    grid, device = features.grid, features.taps[0].device
    resizers = [tuple(resizer(length, grid, tap) for length in tap.shape[1:3]) for tap in features.taps]
    sums = [torch.zeros(tap.shape[1:], dtype=torch.float64, device=device) for tap in features.taps]
    squares = [torch.zeros(tap.shape[3], dtype=torch.float64, device=device) for tap in features.taps]
    per_image = min(grid * grid, max(1, SAMPLED_CELLS // len(features)))
    across = min(grid, max(1, round(per_image**0.5)))
    down = min(grid, max(1, per_image // across))
    generator = torch.Generator().manual_seed(0)
    sampled = []
    for piece in pieces(features, shift):
        ys, xs = (torch.randperm(grid, generator=generator)[:count].to(device) for count in (down, across))
        cells = []
        for i, (tap, (rows, columns)) in enumerate(zip(piece.taps, resizers, strict=True)):
            values = tap.float()
            sums[i] += values.sum(0)
            # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
            aligned = tap.shape[1:3] == (grid, grid)
            twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
            squares[i] += (values * twice).sum(dim=(0, 1, 2))
            cells.append(values[:, ys][:, :, xs] if aligned else resize_maps(values, rows[ys], columns[xs]))
        sampled.append((ys, xs, torch.cat(cells, dim=3)))
    count = len(features)
    mean = Features(tuple((total / count).float()[None] for total in sums), grid)
    aligned_mean = torch.cat([resize_maps(tap, *pair) for tap, pair in zip(mean.taps, resizers, strict=True)], dim=3)
    power = torch.cat([total / (count * grid * grid) for total in squares])
    spread = (power - aligned_mean.double().mean(dim=(0, 1, 2)).square()).clamp(min=0).sqrt()
    varies = spread > CONSTANT * (power.sqrt() + torch.cat(shift).abs())
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0).float()
    departures = [(cells - aligned_mean[:, ys][:, :, xs]).flatten(0, 2) for ys, xs, cells in sampled]
    return Statistics(shift, mean, scale, torch.cat(departures) * scale)


def _shift(features: Features) -> Shift:
    """Nothing, or about the mean of each channel."""
    shifts = []
    for tap in features.of_images(slice(8)).taps:
        spread, mean = torch.std_mean(tap.double(), dim=(0, 1, 2), correction=0)
        lopsided = bool((mean.abs() > LOPSIDED * spread).any())
        shifts.append((mean if lopsided else torch.zeros_like(mean)).float())
    return tuple(shifts)
