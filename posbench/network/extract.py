"""Extraction of features: a forward pass over all images that stores the taps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from posbench.core.errors import ComponentError
from posbench.data.crops import Crops
from posbench.network.forward import ForwardPass
from posbench.plugin.features import Features, allocate_taps
from posbench.plugin.resampling import align


@torch.inference_mode()
def extract(
    forward_pass: ForwardPass, crops: Crops, *, grid: int, progress: Callable[[int], None] = lambda images: None
) -> Features:
    """Return the features of images from one pass of a frozen network.

    Args:
        forward_pass: the network under a padding.
        crops: the images.
        grid: the side of the grid that taps are aligned to; finer taps are resized to it at once.
        progress: called after each batch with its number of images.

    Raises:
        Inapplicable: if the padding cannot be applied to this network.
        ComponentError: if the network or its padding raises, or returns something else than its taps, or values that
            are not finite.
    """
    stored: list[torch.Tensor] = []
    for numbers, taps in forward_pass.batches(crops):
        cells = _cells(forward_pass, taps, grid)
        del taps
        if not stored:
            shapes = [(len(crops), *tap.shape[1:]) for tap in cells]
            stored = allocate_taps(shapes, [tap.dtype for tap in cells], cells[0].device)
        first, last = int(numbers[0]), int(numbers[-1])
        # torch copies to a slice with all threads, but to an index with one.
        contiguous = last - first + 1 == len(numbers)
        index = slice(first, last + 1) if contiguous else torch.from_numpy(numbers)
        for store, tap in zip(stored, cells, strict=True):
            store[index] = tap
        # Freed before the next batch is computed: memory that was just used is the fastest to use again.
        del cells, store, tap
        progress(len(numbers))
    return Features(tuple(stored), grid)


def _cells(forward_pass: ForwardPass, taps: Sequence[torch.Tensor], grid: int) -> list[torch.Tensor]:
    """Return a batch's taps with channels last, those finer than the grid resized to it, if all are finite."""
    resized = [align(tap, grid) if tap.shape[-1] > grid or tap.shape[-2] > grid else tap for tap in taps]
    cells = [tap.permute(0, 2, 3, 1).contiguous() for tap in resized]
    # Checking the extremes takes a tenth of the time of checking each value.
    finite = torch.stack([torch.stack(tap.aminmax()) for tap in cells]).isfinite().all(dim=1)
    if not bool(finite.all()):
        number = int(finite.logical_not().nonzero()[0]) + 1
        padding = forward_pass.padding
        under = f" under {padding.title}" if padding and not padding.native else ""
        raise ComponentError(f"{forward_pass.backbone.title}: tap {number} holds values that are not finite{under}")
    return cells
