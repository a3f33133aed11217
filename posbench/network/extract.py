"""Streams images through a frozen network and keeps what the readouts need of its taps."""

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
    run: ForwardPass, windows: Crops, *, grid: int, progress: Callable[[int], None] = lambda images: None
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
            stored = allocate_taps(shapes, [tap.dtype for tap in cells], cells[0].device)
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


def _cells(run: ForwardPass, taps: Sequence[torch.Tensor], grid: int) -> list[torch.Tensor]:
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
