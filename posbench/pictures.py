"""Maps over the image plane as small pictures that a page holds in itself."""

from __future__ import annotations

import base64
import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posbench.errors import MissingError


def data_uri(values: NDArray[np.float32], low: float, high: float) -> str:
    """A map as a PNG picture, a pixel a cell, from dark (`low`) to bright (`high`); values beyond are cut off.

    Args:
        values: [rows, columns].

    Raises:
        MissingError: without matplotlib, whose colours it takes.
    """
    share = (values.astype(np.float64) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    image = Image.fromarray(np.rint(255 * share.clip(0, 1)).astype(np.uint8), mode=None).convert("P")
    image.putpalette(_viridis())
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")


@cache
def _viridis() -> list[int]:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingError("pictures need matplotlib: pip install 'posbench[report]'") from error
    colours = colormaps["viridis"](np.arange(256), bytes=True)
    return [int(part) for part in colours[:, :3].ravel()]
