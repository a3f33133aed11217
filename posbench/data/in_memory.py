"""Images in memory or in a torch dataset as a source: written to temporary files, then read like a folder."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from posbench.core.errors import UsageError
from posbench.core.files import content_digest
from posbench.plugin.components import Images


class _TemporaryFiles:
    """Image files in a temporary folder, which is deleted with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="posbench-images-"))
        self.paths: list[Path] = []
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __call__(self) -> list[Path]:
        return list(self.paths)


def images(source: Any, *, name: str = "images") -> Images:
    """Return your own images as a source, labelled `pixels:NAME@hash8` by their content.

    They are cropped like photographs in a folder, and no image is in both the training and the test set. They are kept
    in temporary files, three bytes a pixel, until the record is deleted.

    Args:
        source: a tensor [n, 3, height, width], uint8 or floating-point in [0, 1]; or a torch `Dataset`, or any
            iterable, of such images [3, height, width], uint8 arrays [height, width, 3] or Pillow images, each alone or
            the first item of a tuple. Floats are rounded to eight bits; do not normalise them.
        name: the name of the source.

    Raises:
        UsageError: if there is no image, or an image has another type, shape or range.
    """
    files = _TemporaryFiles()
    for number, item in enumerate(_items(source)):
        pixels = _pixels(item, f"image {number} of {name!r}")
        path = files.folder / f"{number:07d}.ppm"
        # PPM, because its bytes, and so the label, depend on the pixels alone and not on the version of Pillow.
        path.write_bytes(b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
        files.paths.append(path)
    if not files.paths:
        raise UsageError(f"images {name!r} hold no image")
    digest = content_digest(files.paths)
    try:
        return Images(
            name=name,
            summary=f"{len(files.paths)} images of your own",
            version=digest,
            label=f"pixels:{name}@{digest[:8]}",
            photographs=files,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _items(source: Any) -> Iterator[Any]:
    if torch.is_tensor(source) or isinstance(source, np.ndarray):
        if source.ndim != 4:
            raise UsageError(f"expected images [n, 3, height, width], not of shape {list(source.shape)}")
        yield from source
    elif hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        # A dataset need not raise IndexError at its end.
        yield from (source[i] for i in range(len(source)))
    elif isinstance(source, Iterable):
        yield from source
    else:
        raise UsageError(f"expected a tensor or a dataset of images, not a {type(source).__name__}")


def _pixels(item: Any, what: str) -> NDArray[np.uint8]:
    """Return one image as uint8 [height, width, 3]."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, Image.Image):
        return np.asarray(item.convert("RGB"))
    if isinstance(item, np.ndarray):
        if item.ndim == 3 and item.shape[2] == 3 and item.dtype == np.uint8:
            return np.ascontiguousarray(item)
        item = torch.from_numpy(np.ascontiguousarray(item))
    if not torch.is_tensor(item):
        raise UsageError(f"{what} is a {type(item).__name__}: give tensors, arrays or Pillow images")
    if item.ndim != 3 or item.shape[0] != 3 or not item.numel():
        raise UsageError(f"{what} has shape {list(item.shape)}: expected [3, height, width]")
    if item.is_floating_point():
        item = item.detach().float()
        # Written so that NaN is rejected, too.
        if not bool(((item >= 0) & (item <= 1)).all()):
            raise UsageError(f"{what} has values outside [0, 1]: give pixels as they are before normalisation")
        item = (item * 255).round().to(torch.uint8)
    if item.dtype != torch.uint8:
        raise UsageError(f"{what} is {item.dtype}: expected uint8, or floating-point numbers in [0, 1]")
    return np.ascontiguousarray(item.detach().cpu().permute(1, 2, 0).numpy())
