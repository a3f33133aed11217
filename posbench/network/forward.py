"""The forward pass of a frozen network over crops, under a padding strategy.

Most strategies keep every cell of the taps. Two do not: `drop` leaves out the cells that depend on padding, and
`surround` runs the network on a larger crop, which includes the surroundings, and keeps the cells of the crop itself.
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
from posbench.data.crops import Crops, Pixels, centre_crop, margin
from posbench.network.build import normalise
from posbench.network.padding import apply_padding, padded_operations
from posbench.network.receptive_field import ReceptiveField, ReceptiveFieldTracer
from posbench.plugin.components import Backbone, Padding
from posbench.plugin.operation import Sides
from posbench.plugin.sandbox import isolated_state, naming_errors

#: Images in a batch, at 224 pixels and below; fewer for larger images, by their area. Large enough to use two cores, or
#: a GPU; small enough that most maps of a pass reuse memory that was just freed.
BATCH = {"cpu": 8, "cuda": 128}
#: The largest difference of a padding-free cell between two paddings, as a share of the tap's maximum: rounding.
ROUNDING = 1e-3
#: The largest image size, in pixels, that is tried to find padding-free cells, and the number of sizes tried.
MAX_SIZE, MAX_TRIALS = 4096, 64

Taps = list[torch.Tensor]
Batch = tuple[NDArray[np.intp], Taps]

_NATIVE = Padding(name="native", summary="as the network came", version="1")


@dataclass(frozen=True)
class ForwardPass:
    """A network and the settings with which it is run.

    Attributes:
        network: as `posbench.network.build.build` returns it, on `device`.
        backbone: its record, for normalisation and messages.
        padding: the padding strategy; None for the network's own padding.
        precision: `fp32`, or `bf16` for autocasting to bfloat16.
        device: `cpu` or `cuda`.
    """

    network: nn.Module
    backbone: Backbone
    padding: Padding | None = None
    precision: str = "fp32"
    device: str = "cpu"

    @torch.inference_mode()
    def prepare(self, *crops: Crops) -> str:
        """Check on one image that the strategy is exact for this network, and that it can be used on these crops.

        Returns:
            A remark for readers of the results, or an empty string.

        Raises:
            Inapplicable: if the strategy cannot be used; names the reason.
        """
        padding = self.padding or _NATIVE
        image = crops[0].pixels[:1]
        if not padding.native or padding.border == "drop":
            operations = padded_operations(self.network, self._normalised(image))  # raises if one cannot be reached
            pads = [operation.layer for operation in operations if operation.operation == "pad"]
            if padding.operate and pads:
                raise Inapplicable(
                    f"{pads[0] or 'the network itself'} pads a map that no convolution or pooling reads as it is, "
                    f"and {padding.name} answers only these"
                )
        if padding.border == "drop":
            self._check_padding_free(image.shape[1])
            self._check_independence(image)
        return self._check_surroundings(image, crops) if padding.border == "surround" else ""

    @torch.inference_mode()
    def batches(self, crops: Crops) -> Iterator[Batch]:
        """Yield the taps of all crops in batches, each as (indices of the crops, [n, channels, height, width] a tap).

        Raises:
            Inapplicable: if the padding cannot be applied to this network.
            ComponentError: if the network raises, or returns something else than its taps.
        """
        border = (self.padding or _NATIVE).border
        with apply_padding(self.padding, self.network):
            if border == "surround":
                yield from self._surrounded_batches(crops)
                return
            for indices in self._split(np.arange(len(crops)), crops.pixels[0, ..., 0].size):
                pixels = crops.pixels[indices]
                yield indices, self._padding_free_taps(pixels) if border == "drop" else self._taps(pixels)

    def _split(self, indices: NDArray[np.intp], area: int) -> Iterator[NDArray[np.intp]]:
        """Yield the indices of images of this area, in pixels, batch by batch."""
        largest = BATCH[self.device]
        size = min(largest, max(1, largest * 224**2 // area))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]

    def _normalised(self, pixels: Pixels) -> torch.Tensor:
        return normalise(torch.from_numpy(pixels).to(self.device), self.backbone)

    def _taps(self, pixels: Pixels, tracer: ReceptiveFieldTracer | None = None) -> Taps:
        """Return all cells of all taps, checked against the backbone's record; a tracer records receptive fields."""
        # In inference mode torch does not count writes to tensors, by which a plugin's padding is checked.
        count_writes = self.padding is not None and self.padding.foreign
        stochastic = self.padding is not None and self.padding.stochastic
        with (
            # Seeded by the pixels: with one seed for all batches, a readout could learn places from the repeated noise.
            isolated_state(str(crc32(pixels.tobytes()))) if stochastic else nullcontext(),
            torch.inference_mode(mode=not count_writes),
            torch.no_grad(),
            torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"),
            tracer or nullcontext(),
            naming_errors(self.backbone),
        ):
            x = self._normalised(pixels)
            taps = self.network(tracer.mark(x) if tracer else x)
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

    def _receptive_fields(self, tracer: ReceptiveFieldTracer, taps: Taps) -> list[ReceptiveField]:
        """Return the receptive field of each tap; raise Inapplicable if that of a tap is unknown."""
        fields = [tracer.receptive_field(tap) for tap in taps]
        if None in fields:
            raise Inapplicable(
                f"it is not known which pixels tap {fields.index(None) + 1} depends on: "
                "the network mixes cells in other ways than by sliding windows"
            )
        return [field for field in fields if field]

    # border="drop": cells that depend on padding are left out.

    def _padding_free_taps(self, pixels: Pixels) -> Taps:
        """Return the cells of each tap that no padding reaches."""
        size = pixels.shape[1]
        tracer = ReceptiveFieldTracer(self.network, size, padding_free_only=True)
        taps = self._taps(pixels, tracer)
        fields = self._receptive_fields(tracer, taps)
        return [tap[(..., *field.padding_free(size, tap.shape))] for tap, field in zip(taps, fields, strict=True)]

    def _check_padding_free(self, size: int) -> None:
        """Check that every tap, and every map that the network pools globally, has padding-free cells."""
        image = np.zeros((1, size, size, 3), np.uint8)
        tracer = ReceptiveFieldTracer(self.network, size)
        maps = self._maps(tracer, self._taps(image, tracer))
        empty = [name for name, field, shape in maps if not _any_padding_free(field, size, shape)]
        if not empty:
            return
        needed = max(max(field.rows.min_image_size(), field.columns.min_image_size()) for _, field, _ in maps)
        # The padding of some networks depends on the image size, so candidate sizes are tried, by shapes alone.
        step = max(field.rows.stride for _, field, _ in maps)
        network = copy.deepcopy(self.network).to("meta")
        sizes = range(max(size + 1, needed - step), min(needed + MAX_TRIALS, MAX_SIZE + 1))
        enough = next((larger for larger in sizes if self._all_padding_free(network, larger)), None)
        raise Inapplicable(
            f"padding reaches every cell of {empty[0]} at {size} px: "
            + (f"give --image-size {enough} or more" if enough else f"it takes an image of {needed} px or more")
        )

    def _all_padding_free(self, network: nn.Module, size: int) -> bool:
        """Return True if a network on the meta device has padding-free cells in every map at this image size."""
        with ReceptiveFieldTracer(network, size) as tracer:
            try:
                taps = network(tracer.mark(torch.empty(1, 3, size, size, device="meta")))
            except Exception:
                return False  # networks raise many kinds of errors for an image size that they cannot take
        return all(_any_padding_free(field, size, shape) for _, field, shape in self._maps(tracer, taps))

    def _maps(self, tracer: ReceptiveFieldTracer, taps: Taps) -> list[tuple[str, ReceptiveField, tuple[int, ...]]]:
        """Return the taps and the maps that the network pools globally, each as (name, receptive field, shape)."""
        pairs = zip(self._receptive_fields(tracer, taps), taps, strict=True)
        maps = [(f"tap {number}", field, tuple(tap.shape)) for number, (field, tap) in enumerate(pairs, 1)]
        pooled = tracer.reductions
        return maps + [(f"what {layer or 'the network'} pools", field, shape) for layer, field, shape in pooled]

    def _check_independence(self, image: Pixels) -> None:
        """Check that the padding's values do not change the cells that are kept: the network may mix cells untraced."""

        def pad_with_ones(x: torch.Tensor, sides: Sides) -> torch.Tensor:
            return F.pad(x, sides, value=1.0)

        native = self._padding_free_taps(image)
        with apply_padding(Padding(name="ones", summary="", version="1", pad=pad_with_ones), self.network):
            padded = self._padding_free_taps(image)
        for number, (tap, other) in enumerate(zip(native, padded, strict=True), 1):
            if float((tap - other).abs().max()) > ROUNDING * float(tap.abs().max()):
                raise Inapplicable(f"padding reaches all cells of tap {number} in ways that cannot be cut off")

    # border="surround": the network sees the crop inside a larger one.

    def _check_surroundings(self, image: Pixels, crops: Sequence[Crops]) -> str:
        """Check that every crop has surroundings, large enough for the network, and return a remark on their size."""
        size, layout = image.shape[1], self._layout(image)
        if margin(size) < layout.stride:
            enough = next(larger for larger in itertools.count(size) if margin(larger) >= layout.stride)
            raise Inapplicable(
                f"at {size} px the margin is {margin(size)} px, less than one step of the network "
                f"({layout.stride} px): give --image-size {enough} or more"
            )
        margins: list[int] = []
        for part in crops:
            for name, larger in zip(part.photographs, part.surrounded, strict=True):
                around = _margins(larger, size, layout.stride)
                if 0 in around:
                    raise Inapplicable(
                        f"photograph {name} leaves less than {layout.stride} px, one step of the network, around its "
                        "windows: leave it out, or give a smaller --image-size"
                    )
                margins.extend(around)
        least, most = min(margins), max(margins)
        notes = [f"margin {least} px" if least == most else f"margin {least} to {most} px, as photographs allow"]
        if layout.reach > least:
            notes.append(f"the network sees up to {layout.reach} px beyond the window")
        if layout.global_layers:
            first, count = layout.global_layers[0] or "the network itself", len(layout.global_layers)
            see = "1 operation sees" if count == 1 else f"{count} operations see"
            notes.append(f"{see} all of the margin, the first in {first}")
        return "; ".join(notes)

    def _surrounded_batches(self, crops: Crops) -> Iterator[Batch]:
        size = crops.pixels.shape[1]
        layout = self._layout(crops.pixels[:1])
        margins = np.array([_margins(larger, size, layout.stride) for larger in crops.surrounded])
        for rows, columns in np.unique(margins, axis=0).tolist():
            alike = np.flatnonzero((margins == (rows, columns)).all(axis=1))
            for indices in self._split(alike, (size + 2 * rows) * (size + 2 * columns)):
                larger = [centre_crop(crops.surrounded[i], size + 2 * rows, size + 2 * columns) for i in indices]
                yield indices, layout.crop(self._taps(np.stack(larger)), rows, columns)

    def _layout(self, image: Pixels) -> CropLayout:
        """Return where the taps of a crop of this size lie in those of a larger one."""
        tracer = ReceptiveFieldTracer(self.network, image.shape[1])
        taps = self._taps(image, tracer)
        shapes = [(tap.shape[-2], tap.shape[-1]) for tap in taps]
        global_layers = [layer for layer, *_ in tracer.reductions] + tracer.untraced
        return CropLayout(image.shape[1], self._receptive_fields(tracer, taps), shapes, global_layers)


@dataclass(frozen=True)
class CropLayout:
    """The taps of a crop within the taps of a larger crop.

    Attributes:
        size: the side of the crop, in pixels.
        fields: the receptive field of each tap.
        shapes: the (height, width) of each of the crop's taps.
        global_layers: the layers that read whole maps.
    """

    size: int
    fields: list[ReceptiveField]
    shapes: list[tuple[int, int]]
    global_layers: list[str]

    @property
    def stride(self) -> int:
        """The shift of the image, in pixels, that shifts every tap by whole cells."""
        return lcm(*(span.stride for field in self.fields for span in (field.rows, field.columns)))

    @property
    def reach(self) -> int:
        """The largest distance beyond the crop, in pixels, that a tap depends on."""
        return max(
            reach
            for field, shape in zip(self.fields, self.shapes, strict=True)
            for span, cells in zip((field.rows, field.columns), shape, strict=True)
            for reach in (-span.first, (cells - 1) * span.stride + span.last - self.size + 1)
        )

    def crop(self, taps: Taps, rows: int, columns: int) -> Taps:
        """Return the crop's cells from the taps of a larger crop with margins of so many pixels."""
        cropped = []
        for tap, field, (height, width) in zip(taps, self.fields, self.shapes, strict=True):
            top, left = rows // field.rows.stride, columns // field.columns.stride
            cropped.append(tap[..., top : top + height, left : left + width])
        return cropped


def _any_padding_free(field: ReceptiveField, size: int, shape: tuple[int, ...]) -> bool:
    return all(part.start < part.stop for part in field.padding_free(size, shape))


def _margins(larger: Pixels, size: int, stride: int) -> tuple[int, int]:
    """Return the margins of a crop in a larger one, (vertical, horizontal), rounded down to whole network strides."""
    vertical, horizontal = ((length - size) // 2 // stride * stride for length in larger.shape[:2])
    return vertical, horizontal
