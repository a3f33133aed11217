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
from torch.nn.grad import conv2d_weight

from posbench.features import Features

#: One tensor [channels, q] a tap.
Weight = tuple[torch.Tensor, ...]
#: From how many channels on a product is had as a convolution of 1×1 on a processor: torch has these from different
#: libraries, of which the second is up to twice as fast on many channels.
WIDE = 128


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


def mix(features: Features, weight: Weight, *, rounded: bool = False) -> torch.Tensor:
    """The channels of all taps mixed and summed on the grid: float32 [q, n, grid, grid].

    Args:
        features: of n images.
        weight: float32, one tensor a tap.
        rounded: whether weights and products may be rounded to the precision of the features, which takes half as long
            where that is bfloat16 and the machine has it.
    """
    n, grid, q = len(features), features.grid, weight[0].shape[1]
    total = features.taps[0].new_zeros((q, n, grid, grid), dtype=torch.float32)
    for tap, part in zip(features.taps, weight, strict=True):
        mixed = _mixed(tap, part, rounded)
        if tap.shape[1:3] == (grid, grid):
            total += mixed.view_as(total)
            continue
        rows, columns = (resizer(length, grid, tap) for length in tap.shape[1:3])
        across = mixed.view(q * n, *tap.shape[1:3]) @ columns.T
        total.view(q * n, grid, grid).baddbmm_(rows.expand(q * n, -1, -1), across)
    return total


def unmix(features: Features, maps: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
    """The adjoint of `mix`: from [q, n, grid, grid], one row a channel of all taps: [channels, q]."""
    maps = maps.expand(-1, len(features), -1, -1)
    parts = []
    for tap in features.taps:
        mixed = maps
        if tap.shape[1:3] != (features.grid, features.grid):
            rows, columns = (resizer(length, features.grid, tap) for length in tap.shape[1:3])
            mixed = rows.T @ maps @ columns
        parts.append(_unmixed(tap, mixed.flatten(1), rounded))
    return torch.cat(parts, dim=1).T.contiguous()


def _mixed(tap: torch.Tensor, part: torch.Tensor, rounded: bool) -> torch.Tensor:
    """A tap [n, h, w, channels] mixed by [channels, q] at its own resolution: float32 [q, n·h·w]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (part.T.bfloat16().contiguous() @ tap.flatten(0, 2).T).float()
    if tap.is_cuda or tap.shape[-1] < WIDE:
        return part.T @ tap.float().flatten(0, 2).T
    mixed = F.conv2d(tap.float().permute(0, 3, 1, 2), part.T[:, :, None, None])
    return mixed.permute(0, 2, 3, 1).flatten(0, 2).T.contiguous()


def _unmixed(tap: torch.Tensor, maps: torch.Tensor, rounded: bool) -> torch.Tensor:
    """The adjoint of `_mixed`: from [q, n·h·w], float32 [q, channels]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (maps.bfloat16() @ tap.flatten(0, 2)).float()
    if tap.is_cuda or tap.shape[-1] < WIDE:
        return maps @ tap.float().flatten(0, 2)
    drawn = maps.T.contiguous().view(*tap.shape[:3], -1).permute(0, 3, 1, 2)
    shape = (len(maps), tap.shape[-1], 1, 1)
    weight: torch.Tensor = conv2d_weight(tap.float().permute(0, 3, 1, 2), shape, drawn)  # type: ignore[no-untyped-call]
    return weight[..., 0, 0]


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
