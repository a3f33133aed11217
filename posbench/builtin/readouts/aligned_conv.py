"""Convolution of aligned taps, computed at each tap's own resolution, and its adjoint.

Mixing channels and resizing commute. So each tap is first mixed into one map for each offset of the kernel and each
target, and only these maps are resized. Resizing, shifting by the offset and summing over offsets are then one matrix
product along rows and one along columns, for all taps together.

The maps of a k×k kernel are stored in k groups, by the column of their offset, so that the values of a row at all
columns of the kernel are adjacent in memory, as the product along columns needs them. `m` stands for the number of maps
of all groups, each group filled up to a multiple of `LANES`.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from posbench import Features

#: Groups of maps are filled up to a multiple of this, as CPUs multiply such matrices faster.
LANES = 16


def by_tap(weight: torch.Tensor, features: Features) -> tuple[torch.Tensor, ...]:
    """Split a tensor [C, …] over the channels of all taps into one part a tap."""
    return torch.split(weight, [tap.shape[-1] for tap in features.taps])


@cache
def resize_matrix(length: int, side: int, device: torch.device) -> torch.Tensor:
    """Return the matrix [side, length] that resizes a row as `posbench.plugin.resampling.align` does."""
    # Created outside of inference mode, as the cached matrix is also used in training.
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(length, dtype=torch.float32, device=device)
        return F.interpolate(identity[None], size=side, mode="linear", align_corners=True)[0].T.contiguous()


def resize_matrices(maps: torch.Tensor, grid: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices that resize rows and columns of maps [n, h, w, channels]: [grid, h] and [grid, w]."""
    return resize_matrix(maps.shape[1], grid, maps.device), resize_matrix(maps.shape[2], grid, maps.device)


def resize_to_grid(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """Resize maps [n, h, w, channels] to [n, grid, grid, channels]."""
    return maps if maps.shape[1:3] == (grid, grid) else resize_maps(maps, *resize_matrices(maps, grid))


def resize_maps(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Resize maps [n, h, w, channels] to [n, rows, columns, channels] by one matrix along each axis."""
    n, h, _, channels = maps.shape
    wide = columns @ maps
    return (rows @ wide.reshape(n, h, -1)).view(n, len(rows), len(columns), channels)


def convolve(
    features: Features, weight: torch.Tensor, kernel: int, padding: int, *, rounded: bool = False
) -> torch.Tensor:
    """Return the k×k convolution of aligned taps: float32 [targets, n, side, side], side = grid + 2·padding − k + 1.

    The weight is float32 [C, k·k·targets], C being the channels of all taps, ordered by the row of the offset, then its
    column, then the target. If `rounded`, weights and products may be rounded to the features' precision, which halves
    the time where that is bfloat16 and the hardware supports it.
    """
    wide, n = features.merged(), len(features)
    targets = weight.shape[1] // kernel**2
    groups = _fill_lanes(weight.view(-1, kernel, kernel, targets).transpose(1, 2).flatten(2)).flatten(1)
    mixed: dict[tuple[int, int], torch.Tensor] = {}
    for tap, part in zip(wide.taps, by_tap(groups, wide), strict=True):
        maps, size = _mix(tap, part, rounded), _size(tap)
        mixed[size] = mixed[size].add_(maps) if size in mixed else maps
    shifted = []
    for (height, width), maps in mixed.items():
        columns = _column_matrix(width, features.grid, kernel, padding, maps.device)
        product = (columns @ maps.view(n * height, width * kernel, -1)).view(n, height, len(columns), -1)
        by_row = product[..., : kernel * targets].view(*product.shape[:3], kernel, targets).permute(0, 3, 1, 2, 4)
        shifted.append(by_row.reshape(n, kernel * height, -1))
    rows = _row_matrix(tuple(height for height, _ in mixed), features.grid, kernel, padding, weight.device)
    output = rows @ torch.cat(shifted, dim=1)
    return output.view(n, len(rows), -1, targets).permute(3, 0, 1, 2).contiguous()


def adjoint(
    features: Features, maps: torch.Tensor, kernel: int, padding: int, *, rounded: bool = False
) -> torch.Tensor:
    """Apply the adjoint of `convolve` to maps [targets, n or 1, side, side]: float32 [C, k·k·targets].

    A second dimension of 1 stands for the same maps for all images.
    """
    wide, n = features.merged(), len(features)
    targets, _, side, _ = maps.shape
    sizes = list(dict.fromkeys(map(_size, wide.taps)))
    rows = _row_matrix(tuple(height for height, _ in sizes), features.grid, kernel, padding, maps.device)
    by_row = rows.T @ maps.expand(-1, n, -1, -1).permute(1, 2, 3, 0).reshape(n, side, -1)
    mixed = {}
    by_size = torch.split(by_row, [kernel * height for height, _ in sizes], 1)
    for (height, width), part in zip(sizes, by_size, strict=True):
        columns = _column_matrix(width, features.grid, kernel, padding, maps.device)
        ordered = part.view(n, kernel, height, side, targets).permute(0, 2, 3, 1, 4).reshape(n * height, side, -1)
        mixed[height, width] = (columns.T @ _fill_lanes(ordered)).view(n, height, width, -1)
    parts = [_mix_adjoint(tap, mixed[_size(tap)], rounded) for tap in wide.taps]
    groups = torch.cat(parts, dim=1).view(kernel, -1, features.channels)
    return groups[:, : kernel * targets].view(kernel, kernel, targets, -1).permute(3, 1, 0, 2).flatten(1)


def _fill_lanes(groups: torch.Tensor) -> torch.Tensor:
    return F.pad(groups, (0, -groups.shape[-1] % LANES))


def _size(tap: torch.Tensor) -> tuple[int, int]:
    return tap.shape[1], tap.shape[2]


def _shift_matrices(length: int, grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """Return, for each offset, the matrix that resizes a row to the grid and shifts it: [kernel, side, length]."""
    padded = F.pad(resize_matrix(length, grid, device), (0, 0, padding, padding))
    return padded.unfold(0, len(padded) - kernel + 1, 1).mT


@cache
def _column_matrix(length: int, grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """Return the matrix for all columns of the kernel, for a row whose cells have k values each: [side, length · k]."""
    with torch.inference_mode(False), torch.no_grad():
        return _shift_matrices(length, grid, kernel, padding, device).permute(1, 2, 0).flatten(1)


@cache
def _row_matrix(lengths: tuple[int, ...], grid: int, kernel: int, padding: int, device: torch.device) -> torch.Tensor:
    """Return the matrix for all rows of the kernel, for stacked maps of several heights: [side, Σ k · length]."""
    with torch.inference_mode(False), torch.no_grad():
        parts = (_shift_matrices(length, grid, kernel, padding, device) for length in lengths)
        return torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)


def _mix(tap: torch.Tensor, weight: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Multiply a tap [n, h, w, channels] by [channels, m]: float32 [n, h, w, m]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (tap @ weight.bfloat16()).float()
    if tap.is_cuda:
        return tap.float() @ weight
    # On CPU, the same product is faster as a convolution.
    return F.conv2d(tap.float().permute(0, 3, 1, 2), weight.T[:, :, None, None]).permute(0, 2, 3, 1).contiguous()


def _mix_adjoint(tap: torch.Tensor, maps: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Apply the adjoint of `_mix` to [n, h, w, m]: float32 [m, channels]."""
    if rounded and tap.dtype == torch.bfloat16:
        return (maps.bfloat16().flatten(0, 2).T @ tap.flatten(0, 2)).float()
    if tap.is_cuda:
        return maps.flatten(0, 2).T @ tap.float().flatten(0, 2)
    shape = (maps.shape[3], tap.shape[3], 1, 1)
    inputs, outputs = (x.permute(0, 3, 1, 2) for x in (tap.float(), maps))
    weight: torch.Tensor = conv2d_weight(inputs, shape, outputs)  # type: ignore[no-untyped-call]
    return weight[..., 0, 0]
