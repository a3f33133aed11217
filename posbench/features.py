"""Streams images through a frozen network and keeps what the readouts need of its taps.

A tap coarser than the aligned grid keeps its own resolution, since mixing channels and resizing commute; a finer one is
resized at once. So no feature is ever held at the grid's resolution that does not come from at least that fine a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from posbench.components import Backbone, Padding
from posbench.errors import PosbenchError
from posbench.networks import normalise
from posbench.padding import apply
from posbench.windows import Pixels

#: Images to a forward pass: enough to fill two cores, few enough that VGG-16's first maps stay below half a gigabyte.
BATCH = 32


@dataclass(frozen=True)
class Features:
    """The taps of n images.

    Attributes:
        taps: one tensor a tap, [n, height, width, channels] (channels last, contiguous), float32 or bfloat16, from the
            shallowest to the deepest; height and width are the tap's own, or the grid's if that is coarser.
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

    def of_images(self, start: int, stop: int) -> Features:
        """The images from `start` to before `stop`; shares their memory."""
        return Features(tuple(tap[start:stop] for tap in self.taps), self.grid)

    def batches(self, size: int) -> Iterator[Features]:
        """All images, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.of_images(start, start + size)

    def aligned(self) -> torch.Tensor:
        """All taps resized to the grid, float32 [n, channels, grid, grid]: large, so ask a few images at a time."""
        return torch.cat([align(tap.permute(0, 3, 1, 2).float(), self.grid) for tap in self.taps], dim=1)


def align(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps [n, channels, height, width] resized to [n, channels, side, side]: bilinear, corner on corner.

    Source: the authors' code for Islam, Jia and Bruce (ICLR 2020) resizes its taps so.
    """
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


@torch.inference_mode()
def extract(
    network: nn.Module,
    backbone: Backbone,
    padding: Padding | None,
    pixels: Pixels,
    *,
    grid: int,
    precision: str,
    device: str,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """One pass of a frozen network over images.

    Args:
        network: as `networks.build` returns it, on `device`.
        backbone: its record, for normalisation and names.
        padding: what its padded operations see; None is what the network came with.
        pixels: uint8 [n, height, width, 3].
        grid: the side of the grid that taps will be aligned to.
        precision: `fp32`, or `bf16` for autocasting to bfloat16.
        progress: told after each batch how many images it held.

    Raises:
        Inapplicable: if the padding cannot serve this network.
        PosbenchError: if the network returns something else than its taps, or values that are not finite.
    """
    stored: list[torch.Tensor] = []
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[start : start + BATCH]).to(device)
        with (
            apply(padding, network),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
        ):
            taps = network(normalise(batch, backbone))
        _check(taps, backbone, len(batch))
        coarse = [align(tap, grid) if tap.shape[-1] > grid or tap.shape[-2] > grid else tap for tap in taps]
        if not stored:
            stored = [tap.new_empty((len(pixels), *tap.shape[2:], tap.shape[1])) for tap in coarse]
        for store, tap in zip(stored, coarse, strict=True):
            store[start : start + len(batch)] = tap.permute(0, 2, 3, 1)
        progress(len(batch))
    return Features(tuple(stored), grid)


def _check(taps: object, backbone: Backbone, images: int) -> None:
    fits = isinstance(taps, list | tuple) and all(
        torch.is_tensor(tap) and tap.ndim == 4 and len(tap) == images for tap in taps
    )
    if not fits or not isinstance(taps, list | tuple) or len(taps) != backbone.taps:
        raise PosbenchError(
            f"backbone {backbone.name!r} must return {backbone.taps} feature maps [n, channels, height, width]"
        )
    for number, tap in enumerate(taps, 1):
        if not bool(tap.isfinite().all()):
            raise PosbenchError(f"backbone {backbone.name!r}: tap {number} holds values that are not finite")
