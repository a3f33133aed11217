"""A convolution on aligned taps, computed at each tap's own resolution.

Mixing channels and resizing commute: rather than resize hundreds of channels and then mix them, the few results are
resized. Throughout, `q` stands for the k·k·targets results of mixing, ordered so: for every offset within the kernel
and every target, a map of what that offset's weights make of the channels. These maps come first in their tensors, and
the images after them, which makes the products nearly as fast as the processor allows, and reading at an offset quick.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from posbench.features import Features

#: One tensor [channels, q] a tap.
Weight = tuple[torch.Tensor, ...]


def by_tap(weight: torch.Tensor, features: Features) -> Weight:
    """A tensor [C, q] over the channels of all taps, one part a tap."""
    return torch.split(weight, [tap.shape[-1] for tap in features.taps])


def resizer(length: int, side: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix [side, length] that resizes a row as `features.align` does."""
    identity = torch.eye(length, dtype=torch.float32, device=like.device)
    return F.interpolate(identity[None], size=side, mode="linear", align_corners=True)[0].T.contiguous()


def resize_maps(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Maps [n, h, w, channels] to [n, rows, columns, channels] by one matrix along each axis."""
    n, h, _, channels = maps.shape
    wide = columns @ maps
    return (rows @ wide.reshape(n, h, -1)).view(n, len(rows), len(columns), channels)


def mix(features: Features, weight: Weight) -> torch.Tensor:
    """The channels of all taps mixed and summed on the grid: float32 [q, n, grid, grid]."""
    n, grid, q = len(features), features.grid, weight[0].shape[1]
    total = features.taps[0].new_zeros((q, n, grid, grid), dtype=torch.float32)
    for tap, part in zip(features.taps, weight, strict=True):
        cells = tap.float().flatten(0, 2)
        if tap.shape[1:3] == (grid, grid):
            total.view(q, -1).addmm_(part.T, cells.T)
            continue
        rows, columns = (resizer(length, grid, tap) for length in tap.shape[1:3])
        across = (part.T @ cells.T).view(q * n, *tap.shape[1:3]) @ columns.T
        total.view(q * n, grid, grid).baddbmm_(rows.expand(q * n, -1, -1), across)
    return total


def unmix(features: Features, maps: torch.Tensor) -> torch.Tensor:
    """The adjoint of `mix`: from [q, n, grid, grid], one row a channel of all taps: [channels, q]."""
    maps = maps.expand(-1, len(features), -1, -1)
    parts = []
    for tap in features.taps:
        mixed = maps
        if tap.shape[1:3] != (features.grid, features.grid):
            rows, columns = (resizer(length, features.grid, tap) for length in tap.shape[1:3])
            mixed = rows.T @ maps @ columns
        parts.append(mixed.flatten(1) @ tap.float().flatten(0, 2))
    return torch.cat(parts, dim=1).T.contiguous()


def gather(mixed: torch.Tensor, kernel: int, padding: int) -> torch.Tensor:
    """The convolution's result [targets, n, side, side]: each offset's mixtures, read at that offset."""
    if padding:
        mixed = F.pad(mixed, [padding] * 4)
    side = mixed.shape[-1] - kernel + 1
    offsets = mixed.view(kernel, kernel, -1, *mixed.shape[1:])
    total = mixed.new_zeros(*offsets.shape[2:4], side, side)
    for y, x in product(range(kernel), repeat=2):
        total += offsets[y, x, ..., y : y + side, x : x + side]
    return total


def scatter(drawn: torch.Tensor, kernel: int, grid: int, padding: int) -> torch.Tensor:
    """The adjoint of `gather`: [q, n, grid, grid]."""
    targets, n, side, _ = drawn.shape
    padded = grid + 2 * padding
    offsets = drawn.new_zeros(kernel, kernel, targets, n, padded, padded)
    for y, x in product(range(kernel), repeat=2):
        offsets[y, x, ..., y : y + side, x : x + side] = drawn
    return offsets.flatten(0, 2)[..., padding : padding + grid, padding : padding + grid]
