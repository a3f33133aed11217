"""A convolution on aligned taps, computed at each tap's own resolution.

Mixing channels and resizing commute: rather than resize hundreds of channels and then mix them, the few results are
resized. Throughout, `q` stands for the k·k·targets results of mixing, ordered so: for every offset within the kernel
and every target, a map of what that offset's weights make of the channels. While they are made they stand last, as the
channels do, which lets processors take many at once; then the maps come first and the images after them, which makes
reading at an offset quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, reduce
from itertools import product

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from posbench.features import Features

#: What processors compute at once: with fewer results of mixing, some of it would lie idle.
LANES = 16


def by_tap(weight: torch.Tensor, features: Features) -> tuple[torch.Tensor, ...]:
    """A tensor [C, q] over the channels of all taps, one part a tap."""
    return torch.split(weight, [tap.shape[-1] for tap in features.taps])


@cache
def resizer(length: int, side: int, device: torch.device) -> torch.Tensor:
    """The matrix [side, length] that resizes a row as `features.align` does."""
    # Outside of inference mode, so that whoever comes first does not decide what may be done with it.
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(length, dtype=torch.float32, device=device)
        return F.interpolate(identity[None], size=side, mode="linear", align_corners=True)[0].T.contiguous()


def resized(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """Maps [n, h, w, channels] on the grid."""
    height, width = maps.shape[1:3]
    if (height, width) == (grid, grid):
        return maps
    return resize_maps(maps, *(resizer(length, grid, maps.device) for length in (height, width)))


def resize_maps(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Maps [n, h, w, channels] to [n, rows, columns, channels] by one matrix along each axis."""
    n, h, _, channels = maps.shape
    wide = columns @ maps
    return (rows @ wide.reshape(n, h, -1)).view(n, len(rows), len(columns), channels)


def mix(features: Features, weight: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
    """The channels of all taps mixed and summed on the grid: float32 [q, n, grid, grid].

    Args:
        features: of n images.
        weight: float32 [C, q], C being the channels of all taps.
        rounded: whether weights and products may be rounded to the precision of the features, which takes half as long
            where that is bfloat16 and the machine has it.
    """
    q = weight.shape[1]
    parts = by_tap(F.pad(weight, (0, -q % LANES)), features)
    mixed = [_mixed(tap, part, rounded) for tap, part in zip(features.taps, parts, strict=True)]
    return _summed(mixed, features.grid)[..., :q].permute(3, 0, 1, 2).contiguous()


def unmix(features: Features, maps: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
    """The adjoint of `mix`: from [q, n, grid, grid], one row a channel of all taps: [channels, q]."""
    q = len(maps)
    maps = maps.expand(-1, len(features), -1, -1).permute(1, 2, 3, 0)
    maps = F.pad(maps, (0, -q % LANES)).contiguous()
    shared = _shared(maps, [tap.shape[1:3] for tap in features.taps])
    parts = [_unmixed(tap, part, rounded)[:q] for tap, part in zip(features.taps, shared, strict=True)]
    return torch.cat(parts, dim=1).T.contiguous()


def _summed(maps: Sequence[torch.Tensor], grid: int) -> torch.Tensor:
    """The sum of maps [n, h, w, q] of several sizes on the grid: [n, grid, grid, q]."""
    aligned = [one for one in maps if one.shape[1:3] == (grid, grid)]
    coarse = [one for one in maps if one.shape[1:3] != (grid, grid)]
    n, q = len(maps[0]), maps[0].shape[3]
    total = reduce(torch.Tensor.add_, aligned) if aligned else maps[0].new_zeros(n, grid, grid, q)
    if coarse:
        # Columns of each, and then the rows of all by one matrix.
        wide = torch.cat([resizer(one.shape[2], grid, one.device) @ one for one in coarse], dim=1)
        rows = torch.cat([resizer(one.shape[1], grid, one.device) for one in coarse], dim=1)
        total.view(n, grid, -1).baddbmm_(rows.expand(n, -1, -1), wide.flatten(2))
    return total


def _shared(maps: torch.Tensor, sizes: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    """The adjoint of `_summed`: from [n, grid, grid, q], maps of each of the sizes."""
    n, grid, *_ = maps.shape
    coarse = [resizer(height, grid, maps.device) for height, width in sizes if (height, width) != (grid, grid)]
    rows = torch.cat(coarse, dim=1).T if coarse else maps.new_empty(0, grid)
    wide = (rows @ maps.flatten(2)).view(n, -1, *maps.shape[2:])
    first = 0
    for height, width in sizes:
        if (height, width) == (grid, grid):
            yield maps
        else:
            yield resizer(width, grid, maps.device).T @ wide[:, first : first + height]
            first += height


def _mixed(tap: torch.Tensor, part: torch.Tensor, rounded: bool) -> torch.Tensor:
    """A tap [n, h, w, channels] mixed by [channels, q] at its own resolution: float32 [n, h, w, q]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (tap @ part.bfloat16()).float()
    if tap.is_cuda:
        return tap.float() @ part
    # The same as a convolution, which torch has from a faster library.
    return F.conv2d(tap.float().permute(0, 3, 1, 2), part.T[:, :, None, None]).permute(0, 2, 3, 1).contiguous()


def _unmixed(tap: torch.Tensor, maps: torch.Tensor, rounded: bool) -> torch.Tensor:
    """The adjoint of `_mixed`: from [n, h, w, q], float32 [q, channels]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (maps.bfloat16().flatten(0, 2).T @ tap.flatten(0, 2)).float()
    if tap.is_cuda:
        return maps.flatten(0, 2).T @ tap.float().flatten(0, 2)
    shape = (maps.shape[3], tap.shape[3], 1, 1)
    taken, drawn = (one.permute(0, 3, 1, 2) for one in (tap.float(), maps))
    weight: torch.Tensor = conv2d_weight(taken, shape, drawn)  # type: ignore[no-untyped-call]
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
