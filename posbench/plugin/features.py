"""The features of many images, as readouts and metrics get them.

Mixing channels and resizing commute, so a tap coarser than the aligned grid keeps its own resolution; a finer one is
resized to the grid when it is extracted. Features therefore never take more memory than the network's own maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from posbench.core.offload import empty
from posbench.plugin.resampling import align


@dataclass(frozen=True)
class Features:
    """The taps of n images.

    Attributes:
        taps: one tensor a tap, [n, height, width, channels], float32 or bfloat16, from the shallowest to the deepest.
            Height and width are the tap's own, or the grid's if that is coarser. As extracted, consecutive taps of one
            size and dtype are adjacent in memory, so a tap need not be contiguous. Large ones are mapped from a file,
            see `posbench.core.offload`.
        grid: the side of the square grid that taps are aligned to.
    """

    taps: tuple[torch.Tensor, ...]
    grid: int

    def __len__(self) -> int:
        return len(self.taps[0])

    @property
    def channels(self) -> int:
        """The number of channels of all taps together."""
        return sum(tap.shape[-1] for tap in self.taps)

    def of_taps(self, indices: Sequence[int]) -> Features:
        """Return the same images with only the taps at these indices."""
        return Features(tuple(self.taps[i] for i in indices), self.grid)

    def of_images(self, indices: slice | Sequence[int]) -> Features:
        """Return the images at these indices; a view of the same memory if they are consecutive, else a copy."""
        if not isinstance(indices, slice) and len(indices) and indices[0] >= 0:
            first, end = indices[0], indices[0] + len(indices)
            if list(indices) == list(range(first, end)):
                indices = slice(first, end)
        if isinstance(indices, slice):
            return Features(tuple(tap[indices] for tap in self.taps), self.grid)
        taps: list[torch.Tensor] = []
        for group in self._adjacent_groups():
            merged = _merge(group)
            index = torch.as_tensor(indices, dtype=torch.int64, device=merged.device)
            selected = empty((len(index), *merged.shape[1:]), merged.dtype, merged.device)
            torch.index_select(merged, 0, index, out=selected)
            taps.extend(torch.split(selected, [tap.shape[3] for tap in group], 3))
        return Features(tuple(taps), self.grid)

    def merged(self) -> Features:
        """Return the same memory as fewer, wider taps: adjacent taps become one."""
        return Features(tuple(map(_merge, self._adjacent_groups())), self.grid)

    def _adjacent_groups(self) -> list[list[torch.Tensor]]:
        groups: list[list[torch.Tensor]] = []
        for tap in self.taps:
            if groups and _adjacent(groups[-1][-1], tap):
                groups[-1].append(tap)
            else:
                groups.append([tap])
        return groups

    def batches(self, size: int) -> Iterator[Features]:
        """Yield all images, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.of_images(slice(start, start + size))

    def aligned(self) -> torch.Tensor:
        """Return all taps resized to the grid, float32 [n, channels, grid, grid]. This is large: use few images."""
        return torch.cat([align(tap.permute(0, 3, 1, 2).float(), self.grid) for tap in self.taps], dim=1)


def allocate_taps(
    shapes: Iterable[Sequence[int]], dtypes: Iterable[torch.dtype], device: torch.device
) -> list[torch.Tensor]:
    """Allocate uninitialised taps [n, height, width, channels].

    Consecutive taps that differ in channels only are adjacent in memory, since few wide products are faster than many
    narrow ones.

    Raises:
        UsageError: if the disk has no room for them.
    """
    taps: list[torch.Tensor] = []
    sizes = ((tuple(shape[:3]), dtype, shape[3]) for shape, dtype in zip(shapes, dtypes, strict=True))
    for (size, dtype), group in groupby(sizes, key=lambda item: item[:2]):
        channels = [item[2] for item in group]
        taps.extend(torch.split(empty((*size, sum(channels)), dtype, device), channels, dim=3))
    return taps


def _adjacent(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return True if the channels of the second tap follow those of the first in memory."""
    end = first.untyped_storage().data_ptr(), first.storage_offset() + first.shape[3]
    start = second.untyped_storage().data_ptr(), second.storage_offset()
    alike = (first.dtype, first.shape[:3], first.stride()) == (second.dtype, second.shape[:3], second.stride())
    return alike and first.stride(3) == 1 and end == start


def _merge(group: Sequence[torch.Tensor]) -> torch.Tensor:
    channels = sum(tap.shape[3] for tap in group)
    return group[0].as_strided((*group[0].shape[:3], channels), group[0].stride(), group[0].storage_offset())
