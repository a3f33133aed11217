"""A frozen network's pass over windows under a padding strategy, and which cells of its taps count.

Most strategies keep every cell. Two are more than a way to pad: `drop` leaves out the cells that depend on padding at
all, and `surround` runs each window inside a larger piece of its photograph and keeps the window's cells.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import lcm
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from posbench.core.errors import ComponentError, Inapplicable
from posbench.data.crops import Crops, Pixels, centre, margin
from posbench.network.build import normalise
from posbench.network.padding import apply, padded_operations
from posbench.network.receptive_field import Following, View
from posbench.plugin.components import Backbone, Padding, Sides
from posbench.plugin.sandbox import isolated_state, naming_errors

#: Images to a forward pass, at 224 pixels and below: enough to fill two cores, or a GPU, and few enough that most maps
#: of a pass are in memory that it has just used, rather than in memory that the system must first clear. Of larger
#: images there are fewer, by their area.
BATCH = {"cpu": 8, "cuda": 128}
#: How far free cells may differ between two paddings, of the greatest value of their tap: rounding alone.
ROUNDING = 1e-3
#: Of the images in which every tap should have free cells, the largest that is tried, in pixels, and how many are.
LARGEST, TRIED = 4096, 64

Taps = list[torch.Tensor]
Batch = tuple[NDArray[np.intp], Taps]

_NATIVE = Padding(name="native", summary="as the network came", version="1")


@dataclass(frozen=True)
class ForwardPass:
    """How a network is run.

    Attributes:
        network: as `networks.build` returns it, on `device`.
        backbone: its record, for normalisation and names.
        padding: what its padded operations see; None is what the network came with.
        precision: `fp32`, or `bf16` for autocasting to bfloat16.
        device: `cpu` or `cuda`.
    """

    network: nn.Module
    backbone: Backbone
    padding: Padding | None = None
    precision: str = "fp32"
    device: str = "cpu"

    @torch.inference_mode()
    def prepare(self, *windows: Crops) -> str:
        """Prove on one image that the strategy is exact for this network, and that these windows can be used.

        Returns:
            What a reader of the results should know, or nothing.

        Raises:
            Inapplicable: naming what stands in the way.
        """
        padding = self.padding or _NATIVE
        image = windows[0].pixels[:1]
        if not padding.native or padding.border == "drop":
            found = padded_operations(self.network, self._normalised(image))  # raises if one would escape the strategy
            alone = [operation.layer for operation in found if operation.operation == "pad"]
            if padding.operate and alone:
                raise Inapplicable(
                    f"{alone[0] or 'the network itself'} pads a map that no convolution or pooling reads as it is, "
                    f"and {padding.name} answers only these"
                )
        if padding.border == "drop":
            self._check_free(image.shape[1])
            self._prove_free(image)
        return self._surroundings(image, windows) if padding.border == "surround" else ""

    @torch.inference_mode()
    def batches(self, windows: Crops) -> Iterator[Batch]:
        """The taps of all windows, some at a time, each as (the windows' numbers, [n, channels, height, width] a tap).

        Raises:
            Inapplicable: if the padding cannot serve this network.
            ComponentError: if the network raises, or returns something else than its taps.
        """
        border = (self.padding or _NATIVE).border
        with apply(self.padding, self.network):
            if border == "surround":
                yield from self._surrounded(windows)
                return
            for numbers in self._in_batches(np.arange(len(windows)), windows.pixels[0, ..., 0].size):
                pixels = windows.pixels[numbers]
                yield numbers, self._free(pixels) if border == "drop" else self._taps(pixels)

    def _in_batches(self, numbers: NDArray[np.intp], area: int) -> Iterator[NDArray[np.intp]]:
        """The numbers of images of so many pixels each, in batches."""
        most = BATCH[self.device]
        size = min(most, max(1, most * 224**2 // area))
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]

    def _normalised(self, pixels: Pixels) -> torch.Tensor:
        return normalise(torch.from_numpy(pixels).to(self.device), self.backbone)

    def _taps(self, pixels: Pixels, following: Following | None = None) -> Taps:
        """All cells of all taps, checked to be what the backbone's record promises; followed, if asked for."""
        # In inference mode torch does not count writes, which a plugin's padding is held to account for.
        counted = self.padding is not None and self.padding.foreign
        drawn = self.padding is not None and self.padding.stochastic
        with (
            # Were it always the same seed, all batches would have the same noise, by which a readout knows places.
            isolated_state(str(crc32(pixels.tobytes()))) if drawn else nullcontext(),
            torch.inference_mode(mode=not counted),
            torch.no_grad(),
            torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"),
            following or nullcontext(),
            naming_errors(self.backbone),
        ):
            x = self._normalised(pixels)
            taps = self.network(following.mark(x) if following else x)
        backbone = self.backbone
        fits = isinstance(taps, list | tuple) and all(
            torch.is_tensor(tap)
            and (tap.ndim, len(tap), tap.device) == (4, len(pixels), x.device)
            and tap.is_floating_point()
            for tap in taps
        )
        if not fits or len(taps) != backbone.taps:
            raise ComponentError(
                f"{backbone.title} must return {backbone.taps} feature maps [n, channels, height, width] on {x.device}"
            )
        return list(taps)

    def _views(self, following: Following, taps: Taps) -> list[View]:
        """What each tap sees.

        Raises:
            Inapplicable: naming a tap of which that is not known.
        """
        views = [following.view(tap) for tap in taps]
        if None in views:
            raise Inapplicable(
                f"it is not known which pixels tap {views.index(None) + 1} depends on: "
                "the network mixes cells in other ways than by sliding windows"
            )
        return [view for view in views if view]

    # Cells that depend on padding are dropped.

    def _free(self, pixels: Pixels) -> Taps:
        """The cells of each tap that no padding reaches."""
        size = pixels.shape[1]
        following = Following(self.network, size, free_only=True)
        taps = self._taps(pixels, following)
        views = self._views(following, taps)
        return [tap[(..., *view.free(size, tap.shape))] for tap, view in zip(taps, views, strict=True)]

    def _check_free(self, size: int) -> None:
        """Check that some cells are free in every tap, and in every map that the network pools whole.

        Raises:
            Inapplicable: if not, with the smallest image in which there are.
        """
        image = np.zeros((1, size, size, 3), np.uint8)
        following = Following(self.network, size)
        maps = self._maps(following, self._taps(image, following))
        gone = [what for what, view, shape in maps if not _any_free(view, size, shape)]
        if not gone:
            return
        needed = max(max(view.rows.needs(), view.columns.needs()) for _, view, _ in maps)
        # Some networks pad a map of another size otherwise, so what should do is tried, from shapes alone.
        step = max(view.rows.stride for _, view, _ in maps)
        network = copy.deepcopy(self.network).to("meta")
        sizes = range(max(size + 1, needed - step), min(needed + TRIED, LARGEST + 1))
        enough = next((larger for larger in sizes if self._leaves_free(network, larger)), None)
        raise Inapplicable(
            f"padding reaches every cell of {gone[0]} at {size} px: "
            + (f"give --image-size {enough} or more" if enough else f"it takes an image of {needed} px or more")
        )

    def _leaves_free(self, network: nn.Module, size: int) -> bool:
        """Whether a network without memory takes an image of this size and has free cells in every map."""
        with Following(network, size) as following:
            try:
                taps = network(following.mark(torch.empty(1, 3, size, size, device="meta")))
            except Exception:
                return False  # some networks take no image of this size, and say so in ways of their own
        return all(_any_free(view, size, shape) for _, view, shape in self._maps(following, taps))

    def _maps(self, following: Following, taps: Taps) -> list[tuple[str, View, tuple[int, ...]]]:
        """The taps, and the maps that the network pools whole: what each is, what its cells see, and its shape."""
        pairs = zip(self._views(following, taps), taps, strict=True)
        maps = [(f"tap {number}", view, tuple(tap.shape)) for number, (view, tap) in enumerate(pairs, 1)]
        pooled = following.reductions
        return maps + [(f"what {layer or 'the network'} pools", view, shape) for layer, view, shape in pooled]

    def _prove_free(self, image: Pixels) -> None:
        """Check that what padding holds makes no difference to the cells that are kept.

        Raises:
            Inapplicable: if it does: the network then mixes cells in ways that are not followed.
        """

        def bright(x: torch.Tensor, sides: Sides) -> torch.Tensor:
            return F.pad(x, sides, value=1.0)

        native = self._free(image)
        with apply(Padding(name="bright", summary="", version="1", pad=bright), self.network):
            other = self._free(image)
        for number, (one, two) in enumerate(zip(native, other, strict=True), 1):
            if float((one - two).abs().max()) > ROUNDING * float(one.abs().max()):
                raise Inapplicable(f"padding reaches all cells of tap {number} in ways that cannot be cut off")

    # The window stands inside a larger piece of its photograph.

    def _surroundings(self, image: Pixels, windows: Sequence[Crops]) -> str:
        """Check that every window has surroundings, and say how far they go.

        Raises:
            Inapplicable: naming a photograph that leaves too little.
        """
        size, layout = image.shape[1], self._layout(image)
        if margin(size) < layout.stride:
            enough = next(larger for larger in itertools.count(size) if margin(larger) >= layout.stride)
            raise Inapplicable(
                f"at {size} px the margin is {margin(size)} px, less than one step of the network "
                f"({layout.stride} px): give --image-size {enough} or more"
            )
        margins: list[int] = []
        for one in windows:
            for name, piece in zip(one.photographs, one.pieces, strict=True):
                around = _margins(piece, size, layout.stride)
                if 0 in around:
                    raise Inapplicable(
                        f"photograph {name} leaves less than {layout.stride} px, one step of the network, around its "
                        "windows: leave it out, or give a smaller --image-size"
                    )
                margins.extend(around)
        least, most = min(margins), max(margins)
        notes = [f"margin {least} px" if least == most else f"margin {least} to {most} px, as photographs allow"]
        if layout.beyond > least:
            notes.append(f"the network sees up to {layout.beyond} px beyond the window")
        if layout.everywhere:
            first = layout.everywhere[0] or "the network itself"
            count = len(layout.everywhere)
            see = "1 operation sees" if count == 1 else f"{count} operations see"
            notes.append(f"{see} all of the margin, the first in {first}")
        return "; ".join(notes)

    def _surrounded(self, windows: Crops) -> Iterator[Batch]:
        size = windows.pixels.shape[1]
        layout = self._layout(windows.pixels[:1])
        margins = np.array([_margins(piece, size, layout.stride) for piece in windows.pieces])
        for rows, columns in np.unique(margins, axis=0).tolist():
            alike = np.flatnonzero((margins == (rows, columns)).all(axis=1))
            for numbers in self._in_batches(alike, (size + 2 * rows) * (size + 2 * columns)):
                pieces = [centre(windows.pieces[i], size + 2 * rows, size + 2 * columns) for i in numbers]
                yield numbers, layout.windows(self._taps(np.stack(pieces)), rows, columns)

    def _layout(self, image: Pixels) -> Layout:
        """How the taps of a window of this size lie in those of a larger piece."""
        following = Following(self.network, image.shape[1])
        taps = self._taps(image, following)
        shapes = [(tap.shape[-2], tap.shape[-1]) for tap in taps]
        everywhere = [layer for layer, *_ in following.reductions] + following.mixtures
        return Layout(image.shape[1], self._views(following, taps), shapes, everywhere)


@dataclass(frozen=True)
class Layout:
    """The taps of a window: what each sees, its (height, width), and the layers that look at whole maps."""

    size: int
    views: list[View]
    shapes: list[tuple[int, int]]
    everywhere: list[str]

    @property
    def stride(self) -> int:
        """The pixels by which a window must move for the cells of every tap to move by whole cells."""
        return lcm(*(span.stride for view in self.views for span in (view.rows, view.columns)))

    @property
    def beyond(self) -> int:
        """How far the taps see beyond the window, in pixels."""
        return max(
            reach
            for view, shape in zip(self.views, self.shapes, strict=True)
            for span, cells in zip((view.rows, view.columns), shape, strict=True)
            for reach in (-span.first, (cells - 1) * span.stride + span.last - self.size + 1)
        )

    def windows(self, taps: Taps, rows: int, columns: int) -> Taps:
        """The window's cells from the taps of a piece that has so many pixels above and beside it."""
        found = []
        for tap, view, (height, width) in zip(taps, self.views, self.shapes, strict=True):
            top, left = rows // view.rows.stride, columns // view.columns.stride
            found.append(tap[..., top : top + height, left : left + width])
        return found


def _any_free(view: View, size: int, shape: tuple[int, ...]) -> bool:
    return all(part.start < part.stop for part in view.free(size, shape))


def _margins(piece: Pixels, size: int, stride: int) -> tuple[int, int]:
    """The pixels around a window in its piece, above and beside, in whole steps of the network."""
    above, beside = ((length - size) // 2 // stride * stride for length in piece.shape[:2])
    return above, beside
