"""The taps of many images, as readouts and metrics get them.

A tap coarser than the aligned grid keeps its own resolution, since mixing channels and resizing commute; a finer one is
resized at once. So no feature is ever held at the grid's resolution that does not come from at least that fine a map.
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
        taps: one tensor a tap, [n, height, width, channels], float32 or bfloat16, from the shallowest to the deepest;
            height and width are the tap's own, or the grid's if that is coarser. As extracted, those of one size and
            dtype that follow each other lie side by side in memory, so a tap need not be contiguous; large ones are
            mapped from a file: see `posbench.core.offload`.
        grid: the side of the square grid that taps are aligned to.
    """

    taps: tuple[torch.Tensor, ...]
    grid: int

    def __len__(self) -> int:
        return len(self.taps[0])

    @property
    def channels(self) -> int:
        """Of all taps together."""
        return sum(tap.shape[-1] for tap in self.taps)

    def of_taps(self, indices: Sequence[int]) -> Features:
        """The same images, with the taps at these indices alone."""
        return Features(tuple(self.taps[i] for i in indices), self.grid)

    def of_images(self, numbers: slice | Sequence[int]) -> Features:
        """The images of these numbers; those that stand together share their memory."""
        if not isinstance(numbers, slice) and len(numbers) and numbers[0] >= 0:
            run = range(numbers[0], numbers[0] + len(numbers))
            numbers = slice(run.start, run.stop) if list(numbers) == list(run) else numbers
        if isinstance(numbers, slice):
            return Features(tuple(tap[numbers] for tap in self.taps), self.grid)
        chosen = [(_chosen(_as_one(run), numbers), [tap.shape[3] for tap in run]) for run in self._runs()]
        return Features(tuple(tap for wide, channels in chosen for tap in torch.split(wide, channels, 3)), self.grid)

    def merged(self) -> Features:
        """The same memory with fewer taps, wider ones: those that lie side by side are one."""
        return Features(tuple(map(_as_one, self._runs())), self.grid)

    def _runs(self) -> list[list[torch.Tensor]]:
        """Taps that lie side by side, together."""
        runs: list[list[torch.Tensor]] = []
        for tap in self.taps:
            if runs and _beside(runs[-1][-1], tap):
                runs[-1].append(tap)
            else:
                runs.append([tap])
        return runs

    def batches(self, size: int) -> Iterator[Features]:
        """All images, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.of_images(slice(start, start + size))

    def aligned(self) -> torch.Tensor:
        """All taps resized to the grid, float32 [n, channels, grid, grid]: large, so ask a few images at a time."""
        return torch.cat([align(tap.permute(0, 3, 1, 2).float(), self.grid) for tap in self.taps], dim=1)


def allocate_taps(
    shapes: Iterable[Sequence[int]], dtypes: Iterable[torch.dtype], device: torch.device
) -> list[torch.Tensor]:
    """Taps [n, height, width, channels] without values; those alike but for their channels lie side by side if they
    follow each other, since few wide products take less time than many narrow ones.

    Raises:
        UsageError: if the disk has no room for them.
    """
    made: list[torch.Tensor] = []
    asked = zip(shapes, dtypes, strict=True)
    for (size, dtype), alike in groupby(asked, key=lambda one: (tuple(one[0][:3]), one[1])):
        channels = [shape[3] for shape, _ in alike]
        made.extend(torch.split(empty((*size, sum(channels)), dtype, device), channels, dim=3))
    return made


def _beside(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the channels of a tap go on where those of another end."""
    place = one.untyped_storage().data_ptr(), one.storage_offset() + one.shape[3]
    there = other.untyped_storage().data_ptr(), other.storage_offset()
    alike = (one.dtype, one.shape[:3], one.stride()) == (other.dtype, other.shape[:3], other.stride())
    return alike and one.stride(3) == 1 and place == there


def _as_one(run: Sequence[torch.Tensor]) -> torch.Tensor:
    """Taps that lie side by side as one."""
    channels = sum(tap.shape[3] for tap in run)
    return run[0].as_strided((*run[0].shape[:3], channels), run[0].stride(), run[0].storage_offset())


def _chosen(tap: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    index = torch.as_tensor(numbers, dtype=torch.int64, device=tap.device)
    return torch.index_select(tap, 0, index, out=empty((len(index), *tap.shape[1:]), tap.dtype, tap.device))
