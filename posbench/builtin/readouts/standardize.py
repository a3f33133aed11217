"""Standardisation of features, and their split into a mean image and residuals.

A readout must return the same map for all images, so it can only use their mean image; the residuals act as noise.
Residuals may be rounded to bfloat16 without changing the fit, whole features may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from posbench import Features
from posbench.builtin.readouts.aligned_conv import resize_maps, resize_matrices, resize_to_grid
from posbench.core.offload import fits_in_memory
from posbench.plugin.features import allocate_taps

#: The number of values in a chunk, and the least number of grid cells: large enough to occupy all cores, small enough
#: that intermediate results stay in the cache.
CHUNK_VALUES, CHUNK_CELLS = 2**22, 2**15
#: The most images that are summed in float32, which adds no error beyond that of the values; larger sums are float64.
FLOAT32_IMAGES = 8
#: The approximate number of grid cells that are sampled, over all images; at least one an image.
SAMPLED_CELLS = 4096
#: A channel whose standard deviation is below this share of its mean is constant up to rounding.
CONSTANT = 1e-5


@dataclass(frozen=True)
class StandardisedFeatures:
    """Features of n images, split into mean image and residuals. Statistics are over all images and aligned grid cells.

    Attributes:
        features: the unchanged features.
        offsets: for each tap what is subtracted from the mean image, float32 [channels]: the channel mean, or 0.
        centred_mean: the mean image minus the offsets, float32.
        scale: one over the standard deviation of each channel of all taps, float32 [C]; 0 for a constant channel.
        residual_sample: standardised residuals at seeded cells of all images, float32 [m, C].
        rounded: whether residuals are bfloat16.
    """

    features: Features
    offsets: tuple[torch.Tensor, ...]
    centred_mean: Features
    scale: torch.Tensor
    residual_sample: torch.Tensor
    rounded: bool
    _cached_residuals: Features | None

    def operands(self) -> Iterator[Features]:
        """Yield, chunk by chunk, the features to multiply in order to multiply the residuals.

        These are the residuals themselves if they are rounded. Otherwise they are the features, which include the mean
        image: subtracting it from a product is cheaper than subtracting it from the features.
        """
        if not self.rounded:
            yield from chunks(self.features)
            return
        for images in _chunk_slices(self.features):
            if self._cached_residuals is not None:
                yield self._cached_residuals.of_images(images)
            else:
                residuals = self.residuals(images)
                yield Features(tuple(tap.bfloat16() for tap in residuals.taps), residuals.grid)

    def residuals(self, images: slice | Sequence[int]) -> Features:
        """Return the chosen images minus the mean image, float32."""
        taps = zip(self.features.of_images(images).taps, self.offsets, self.centred_mean.taps, strict=True)
        return Features(tuple(tap.float() - offset - mean for tap, offset, mean in taps), self.features.grid)

    @property
    def mean_image(self) -> Features:
        """The mean image, float32."""
        return Features(tuple(map(torch.add, self.centred_mean.taps, self.offsets)), self.centred_mean.grid)


def chunks(features: Features) -> Iterator[Features]:
    """Yield the features, some images at a time."""
    return map(features.of_images, _chunk_slices(features))


def standardise(features: Features, *, centring: bool = True, rounding: bool = False) -> StandardisedFeatures:
    """Compute the statistics of features in two passes over them; in three, if rounded residuals are cached.

    With `centring`, channel means are subtracted from the mean image; zero padding forbids it, as zeros would change.
    With `rounding`, residuals are bfloat16 if the features are.
    """
    means, averages, variances = zip(*(_moments(tap, features.grid) for tap in features.taps), strict=True)
    offsets = tuple((average if centring else torch.zeros_like(average)).float() for average in averages)
    # Subtracted in float64: in float32 a channel far from zero would lose most of its digits.
    centred = Features(
        tuple((mean - offset).float() for mean, offset in zip(means, offsets, strict=True)), features.grid
    )
    deviation = torch.cat(variances).clamp(min=0).sqrt()
    varies = deviation > CONSTANT * torch.cat(averages).abs()
    scale = torch.where(varies, 1 / deviation.where(varies, torch.ones_like(deviation)), 0.0).float()
    sample = _sample_residuals(features, offsets, centred) * scale
    rounded = rounding and features.taps[0].dtype == torch.bfloat16
    cached = _cache_residuals(features, offsets, centred) if rounded else None
    return StandardisedFeatures(features, offsets, centred, scale, sample, rounded, cached)


def _chunk_slices(features: Features) -> Iterator[slice]:
    values = sum(tap[0].numel() for tap in features.taps)
    return _slices(len(features), max(CHUNK_VALUES // values, CHUNK_CELLS // features.grid**2))


def _slices(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(first, first + size) for first in range(0, count, size))


def _moments(tap: torch.Tensor, grid: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean image [1, height, width, channels], and each channel's mean and variance on the grid; float64."""
    rows, columns = resize_matrices(tap, grid)
    aligned = tap.shape[1:3] == (grid, grid)
    # Subtracted first: in float32 the variance of a channel far from zero would be lost.
    shift = tap[:1].float().mean(dim=(0, 1, 2))
    total = torch.zeros_like(tap[:1], dtype=torch.float64)
    squares = torch.zeros_like(shift, dtype=torch.float64)
    for images in _slices(len(tap), min(FLOAT32_IMAGES, CHUNK_VALUES // tap[0].numel())):
        values = tap[images].float() - shift
        total += values.sum(0)
        # Σ over the grid of (R x)² is x · (RᵀR x), which needs no map at the grid's resolution.
        twice = values if aligned else resize_maps(values, rows.T @ rows, columns.T @ columns)
        squares += (values * twice).sum(dim=(0, 1, 2))
    mean = total / len(tap)
    average = resize_to_grid(mean.float(), grid).double().mean(dim=(0, 1, 2))
    return mean + shift, average + shift, squares / (len(tap) * grid**2) - average.square()


def _cache_residuals(features: Features, offsets: Sequence[torch.Tensor], centred: Features) -> Features | None:
    """Return all residuals in bfloat16; None if they do not fit into memory."""
    if not fits_in_memory(sum(tap.numel() for tap in features.taps) * torch.bfloat16.itemsize):
        return None
    taps = features.taps
    cached = allocate_taps([tap.shape for tap in taps], [torch.bfloat16] * len(taps), taps[0].device)
    for tap, offset, mean, residuals in zip(taps, offsets, centred.taps, cached, strict=True):
        for images in _slices(len(tap), min(FLOAT32_IMAGES, CHUNK_VALUES // tap[0].numel())):
            residuals[images] = tap[images].float() - offset - mean
    return Features(tuple(cached), features.grid)


def _sample_residuals(features: Features, offsets: Sequence[torch.Tensor], centred: Features) -> torch.Tensor:
    """Return the residuals at some cells of all images, float32 [m, C]; each chunk draws other cells."""
    grid = features.grid
    per_image = min(grid * grid, max(1, SAMPLED_CELLS // len(features)))
    across = min(grid, max(1, round(per_image**0.5)))
    down = min(grid, max(1, per_image // across))
    generator = torch.Generator().manual_seed(0)
    sample = []
    for images in _chunk_slices(features):
        ys, xs = (torch.randperm(grid, generator=generator)[:size].to(offsets[0].device) for size in (down, across))
        cells = []
        for tap, offset, mean in zip(features.taps, offsets, centred.taps, strict=True):
            if tap.shape[1:3] == (grid, grid):
                at = (slice(None), ys[:, None], xs)
                cells.append(tap[images][at].float() - offset - mean[at])
            else:
                rows, columns = resize_matrices(tap, grid)
                values, means = (resize_maps(maps, rows[ys], columns[xs]) for maps in (tap[images].float(), mean))
                cells.append(values - offset - means)
        sample.append(torch.cat(cells, dim=3).flatten(0, 2))
    return torch.cat(sample)
