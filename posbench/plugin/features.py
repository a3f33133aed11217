"""Streams images through a frozen network and keeps what the readouts need of its taps.

A tap coarser than the aligned grid keeps its own resolution, since mixing channels and resizing commute; a finer one is
resized at once. So no feature is ever held at the grid's resolution that does not come from at least that fine a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F

from posbench.core.errors import ComponentError
from posbench.core.offload import empty
from posbench.data.crops import Windows
from posbench.network.forward import Pass
from posbench.plugin.components import Component
from posbench.plugin.sandbox import writes_to


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


def rooms(shapes: Iterable[Sequence[int]], dtypes: Iterable[torch.dtype], device: torch.device) -> list[torch.Tensor]:
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


class SpoiltError(ComponentError):
    """A component wrote into features, which others share: they have to be made again."""


@contextmanager
def unspoilt(component: Component, *features: Features) -> Iterator[None]:
    """A context in which a component is given features that it must leave as they are.

    torch counts how often each is written to; what is written past it shows in the first image, which is compared.

    Raises:
        SpoiltError: if it did not.
    """
    kept = [(tap, writes_to(tap), tap[:1].clone()) for one in features for tap in one.taps]
    try:
        yield
    finally:
        if any(writes_to(tap) != writes or not torch.equal(tap[:1], first) for tap, writes, first in kept):
            raise SpoiltError(f"{component.title} wrote into the features that it was given")


def align(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps [n, channels, height, width] resized to [n, channels, side, side]: bilinear, corner on corner.

    Source: the authors' code for Islam, Jia and Bruce (ICLR 2020) resizes its taps so.
    """
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


@torch.inference_mode()
def extract(
    run: Pass, windows: Windows, *, grid: int, progress: Callable[[int], None] = lambda images: None
) -> Features:
    """What one pass of a frozen network makes of windows.

    Args:
        run: the network under a padding.
        windows: the images.
        grid: the side of the grid that taps will be aligned to.
        progress: told after each batch how many images it held.

    Raises:
        Inapplicable: if the padding cannot serve this network.
        ComponentError: if the network or its padding raises, or returns something else than its taps, or values that
            are not finite.
    """
    stored: list[torch.Tensor] = []
    for numbers, taps in run.batches(windows):
        cells = _cells(run, taps, grid)
        del taps
        if not stored:
            shapes = [(len(windows), *tap.shape[1:]) for tap in cells]
            stored = rooms(shapes, [tap.dtype for tap in cells], cells[0].device)
        first, last = int(numbers[0]), int(numbers[-1])
        # All threads copy to a slice, and one to chosen places.
        together = last - first + 1 == len(numbers)
        place = slice(first, last + 1) if together else torch.from_numpy(numbers)
        for store, made in zip(stored, cells, strict=True):
            store[place] = made
        # Let go of before the next batch is computed: memory that was just used is the quickest to use again.
        del cells, store, made
        progress(len(numbers))
    return Features(tuple(stored), grid)


def _cells(run: Pass, taps: Sequence[torch.Tensor], grid: int) -> list[torch.Tensor]:
    """What is kept of a batch's taps, channels last: finer ones resized to the grid.

    Raises:
        ComponentError: if they hold values that are not finite.
    """
    coarse = [align(tap, grid) if tap.shape[-1] > grid or tap.shape[-2] > grid else tap for tap in taps]
    cells = [tap.permute(0, 2, 3, 1).contiguous() for tap in coarse]
    # The extremes tell as much as a look at each value, in a tenth of the time.
    finite = torch.stack([torch.stack(tap.aminmax()) for tap in cells]).isfinite().all(dim=1)
    if not bool(finite.all()):
        number = int(finite.logical_not().nonzero()[0]) + 1
        under = f" under {run.padding.title}" if run.padding and not run.padding.native else ""
        raise ComponentError(f"{run.backbone.title}: tap {number} holds values that are not finite{under}")
    return cells
