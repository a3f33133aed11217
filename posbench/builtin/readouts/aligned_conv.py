"""A convolution on aligned taps, computed at each tap's own resolution, and its adjoint.

Mixing channels and resizing commute: rather than resize hundreds of channels and then mix them, the few results are
resized. For every offset within the kernel and every target, mixing makes a map of what that offset's weights make of
the channels; resizing, reading each map at its offset and summing are one matrix along rows and one along columns, for
all taps together. The maps of a k×k kernel are kept in k groups, by the column of their offset, so that the cells of a
row at all columns of the kernel lie one after the other: what the matrix along columns takes in. `m` stands for the
maps of all groups, filled up as `LANES` says.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from posbench.plugin.features import Features

#: Maps of a group are filled up to a multiple of this: of other numbers, processors leave some lanes idle.
LANES = 16


def by_tap(weight: torch.Tensor, features: Features) -> tuple[torch.Tensor, ...]:
    """A tensor [C, …] over the channels of all taps, one part a tap."""
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


def convolve(
    features: Features, weight: torch.Tensor, kernel: int, padding: int, *, rounded: bool = False
) -> torch.Tensor:
    """The k×k convolution of aligned taps: float32 [targets, n, side, side] with side = grid + 2·padding − k + 1.

    Args:
        features: of n images.
        weight: float32 [C, k·k·targets], C being the channels of all taps: an offset's row first, then its column,
            then the target.
        kernel: k.
        padding: cells of zeros around the aligned features.
        rounded: whether weights and products may be rounded to the precision of the features, which takes half as long
            where that is bfloat16 and the machine has it.
    """
    wide, n = features.merged(), len(features)
    targets = weight.shape[1] // kernel**2
    groups = _filled(weight.view(-1, kernel, kernel, targets).transpose(1, 2).flatten(2)).flatten(1)
    mixed: dict[tuple[int, int], torch.Tensor] = {}
    for tap, part in zip(wide.taps, by_tap(groups, wide), strict=True):
        maps, size = _mixed(tap, part, rounded), _size(tap)
        mixed[size] = mixed[size].add_(maps) if size in mixed else maps
    read = []
    for (height, width), maps in mixed.items():
        columns = _columns(width, features.grid, kernel, padding, maps.device)
        found = (columns @ maps.view(n * height, width * kernel, -1)).view(n, height, len(columns), -1)
        by_row = found[..., : kernel * targets].view(*found.shape[:3], kernel, targets).permute(0, 3, 1, 2, 4)
        read.append(by_row.reshape(n, kernel * height, -1))
    rows = _rows(tuple(height for height, _ in mixed), features.grid, kernel, padding, weight.device)
    drawn = rows @ torch.cat(read, dim=1)
    return drawn.view(n, len(rows), -1, targets).permute(3, 0, 1, 2).contiguous()


def adjoint(
    features: Features, drawn: torch.Tensor, kernel: int, padding: int, *, rounded: bool = False
) -> torch.Tensor:
    """The adjoint of `convolve`: from [targets, n or 1 for all alike, side, side], float32 [C, k·k·targets]."""
    wide, n = features.merged(), len(features)
    targets, _, side, _ = drawn.shape
    sizes = list(dict.fromkeys(map(_size, wide.taps)))
    rows = _rows(tuple(height for height, _ in sizes), features.grid, kernel, padding, drawn.device)
    by_row = rows.T @ drawn.expand(-1, n, -1, -1).permute(1, 2, 3, 0).reshape(n, side, -1)
    mixed = {}
    by_size = torch.split(by_row, [kernel * height for height, _ in sizes], 1)
    for (height, width), part in zip(sizes, by_size, strict=True):
        columns = _columns(width, features.grid, kernel, padding, drawn.device)
        found = part.view(n, kernel, height, side, targets).permute(0, 2, 3, 1, 4).reshape(n * height, side, -1)
        mixed[height, width] = (columns.T @ _filled(found)).view(n, height, width, -1)
    parts = [_unmixed(tap, mixed[_size(tap)], rounded) for tap in wide.taps]
    groups = torch.cat(parts, dim=1).view(kernel, -1, features.channels)
    return groups[:, : kernel * targets].view(kernel, kernel, targets, -1).permute(3, 1, 0, 2).flatten(1)


def _filled(groups: torch.Tensor) -> torch.Tensor:
    """The last dimension filled up with zeros to a multiple of `LANES`."""
    return F.pad(groups, (0, -groups.shape[-1] % LANES))


def _size(tap: torch.Tensor) -> tuple[int, int]:
    return tap.shape[1], tap.shape[2]


def _readings(length: int, grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """For each offset, the matrix that resizes a row to the grid and reads it there: [kernel, side, length]."""
    padded = F.pad(resizer(length, grid, device), (0, 0, padding, padding))
    return padded.unfold(0, len(padded) - kernel + 1, 1).mT


@cache
def _columns(length: int, grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """What is read at all columns of the kernel, from the cells of a row with k values each: [side, length · k]."""
    with torch.inference_mode(False), torch.no_grad():
        return _readings(length, grid, kernel, padding, device).permute(1, 2, 0).flatten(1)


@cache
def _rows(lengths: tuple[int, ...], grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """What is read at all rows of the kernel, from maps of several heights below each other: [side, Σ k · length]."""
    with torch.inference_mode(False), torch.no_grad():
        read = [_readings(length, grid, kernel, padding, device).transpose(0, 1).flatten(1) for length in lengths]
        return torch.cat(read, dim=1)


def _mixed(tap: torch.Tensor, part: torch.Tensor, rounded: bool) -> torch.Tensor:
    """A tap [n, h, w, channels] mixed by [channels, m] at its own resolution: float32 [n, h, w, m]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (tap @ part.bfloat16()).float()
    if tap.is_cuda:
        return tap.float() @ part
    # The same as a convolution, which torch has from a faster library.
    return F.conv2d(tap.float().permute(0, 3, 1, 2), part.T[:, :, None, None]).permute(0, 2, 3, 1).contiguous()


def _unmixed(tap: torch.Tensor, maps: torch.Tensor, rounded: bool) -> torch.Tensor:
    """The adjoint of `_mixed`: from [n, h, w, m], float32 [m, channels]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (maps.bfloat16().flatten(0, 2).T @ tap.flatten(0, 2)).float()
    if tap.is_cuda:
        return maps.flatten(0, 2).T @ tap.float().flatten(0, 2)
    shape = (maps.shape[3], tap.shape[3], 1, 1)
    taken, drawn = (one.permute(0, 3, 1, 2) for one in (tap.float(), maps))
    weight: torch.Tensor = conv2d_weight(taken, shape, drawn)  # type: ignore[no-untyped-call]
    return weight[..., 0, 0]
