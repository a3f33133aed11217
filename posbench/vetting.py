"""What a stored result must look like, whoever wrote it: stores travel, and nobody vouches for them."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping
from math import isfinite, isqrt
from typing import Any

#: What an identity is made of that tables show: its parts, and in each of them a text.
_OF_JOB = {"backbone": "name", "weights": "label", "padding": "name", "images": "label", "test_images": "label"}
_OF_CELL = _OF_JOB | {"target": "name", "readout": "name"}
_JOB_SETTINGS = ("image_size", "precision", "n_train", "n_test")
_CELL_SETTINGS = (*_JOB_SETTINGS, "taps", "seed", "score_at")
_SCALARS = (str, int, float, bool, type(None))


def cell_identity(text: str) -> dict[str, Any]:
    """The identity of a cell, from canonical JSON.

    Raises:
        ValueError: if something is missing, or is no text where a name should be.
    """
    return _identity(text, _OF_CELL, _CELL_SETTINGS)


def job_identity(text: str) -> dict[str, Any]:
    """The same of a job."""
    return _identity(text, _OF_JOB, _JOB_SETTINGS)


def _identity(text: str, parts: Mapping[str, str], settings: tuple[str, ...]) -> dict[str, Any]:
    found = _object(text)
    for name, key in parts.items():
        part = found.get(name)
        if not isinstance(part, dict) or not isinstance(part.get(key), str):
            raise ValueError(f"an identity without the {key} of its {name}")
        plain(part[key])
    for name in settings:
        if name not in found or not isinstance(found[name], _SCALARS):
            raise ValueError(f"an identity without {name}")
    return found


def by_photograph(text: str) -> dict[str, float]:
    """What each photograph scored, from JSON.

    Raises:
        ValueError: if it holds anything but finite numbers.
    """
    found = _object(text)
    for value in found.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError("a photograph without a finite number")
    return found


def maps(content: bytes | None, columns: int | None = None) -> bytes | None:
    """A map: float32, row by row, of so many columns, or square.

    Raises:
        ValueError: if it has another shape, or values that are not finite.
    """
    if content is None:
        return None
    cells, rest = divmod(len(content), 4)
    wide = columns or isqrt(cells)
    if rest or not cells or wide < 1 or cells % wide or (columns is None and wide * wide != cells):
        raise ValueError(f"a map of {len(content)} bytes")
    # A sum is finite only if all its terms are: they are far from where float64 ends.
    if not isfinite(sum(array("f", content))):
        raise ValueError("a map that is not finite")
    return content


def small_map(content: bytes) -> bytes:
    """A square map of float16, row by row.

    Raises:
        ValueError: if it has another shape, or values that are not finite.
    """
    cells, rest = divmod(len(content), 2)
    if rest or not cells or isqrt(cells) ** 2 != cells:
        raise ValueError(f"a small map of {len(content)} bytes")
    if not isfinite(sum(struct.unpack(f"<{cells}e", content))):
        raise ValueError("a map that is not finite")
    return content


def thumbnail(content: bytes) -> bytes:
    """A square picture of red, green and blue, a byte each.

    Raises:
        ValueError: if it has another shape.
    """
    pixels, rest = divmod(len(content), 3)
    if rest or not pixels or isqrt(pixels) ** 2 != pixels:
        raise ValueError(f"a thumbnail of {len(content)} bytes")
    return content


def cleaned(text: str) -> str:
    """Text with a space for each character that `plain` would not have."""
    return "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)


def plain(text: str) -> str:
    """Text without what a terminal would obey.

    Raises:
        ValueError: if it holds any.
    """
    if cleaned(text) != text:
        raise ValueError(f"control characters in {text[:40]!r}")
    return text


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that nests too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("JSON that is no object")
    return found
