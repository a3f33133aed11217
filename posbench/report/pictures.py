"""Maps over the image plane as small pictures that a page holds in itself."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posbench.core.errors import MissingError


def square(content: bytes, form: str) -> NDArray[np.float32]:
    """A map as stores keep it, row by row as numbers of this form (`<f4`), float32 [side, side]."""
    flat = np.frombuffer(content, form).astype(np.float32)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


def data_uri(values: NDArray[np.float32], low: float, high: float, colours: str = "viridis") -> str:
    """A map as a PNG picture, a pixel a cell, from dark (`low`) to bright (`high`); values beyond are cut off.

    Args:
        values: [rows, columns].
        colours: the name of a colour map of matplotlib.

    Raises:
        MissingError: without matplotlib, whose colours it takes.
    """
    share = (values.astype(np.float64) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    image = Image.fromarray(np.rint(255 * share.clip(0, 1)).astype(np.uint8), mode=None).convert("P")
    image.putpalette(_palette(colours))
    return _uri(image, "PNG", optimize=True)


def photograph_uri(rgb: bytes) -> str:
    """A square photograph, uint8 red, green and blue row by row, as a JPEG picture."""
    side = round((len(rgb) // 3) ** 0.5)
    return _uri(Image.frombytes("RGB", (side, side), rgb), "JPEG", quality=80)


def svg_uri(svg: str) -> str:
    """A drawing as an SVG picture; nothing in it runs, as it is a picture and no part of the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _uri(image: Image.Image, form: str, **options: Any) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


@cache
def _palette(name: str) -> list[int]:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingError("pictures need matplotlib: pip install 'position-bench[report]'") from error
    colours = colormaps[name](np.arange(256), bytes=True)
    return [int(part) for part in colours[:, :3].ravel()]
