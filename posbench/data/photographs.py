"""Photographs of a source: finding the readable files, and decoding them."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from posbench.core.errors import UsageError, one_line
from posbench.core.files import content_hash
from posbench.core.text import printable_filename
from posbench.plugin.components import Images
from posbench.plugin.sandbox import naming_errors

#: The largest share of unreadable photographs; more than that points to a problem with the whole folder.
MAX_UNREADABLE = 0.05
#: The most photographs that are decoded at once, as each is held in memory.
MAX_THREADS = 8
#: The most files that an error message lists.
MAX_LISTED = 20
#: Formats that are decoded. Pillow has others that are not safe for untrusted files: it runs PostScript in a program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_OPEN_LOCK = threading.Lock()


@dataclass(frozen=True)
class Photograph:
    """A file and the hash of its content; files of equal content are one photograph."""

    path: Path
    digest: str

    @property
    def name(self) -> str:
        """`STEM@hash8`, in printable characters."""
        return f"{printable_filename(self.path.stem)}@{self.digest[:8]}"


@dataclass(frozen=True)
class ReadablePhotographs:
    """The distinct photographs of a source.

    Attributes:
        photographs: the readable ones, in a seeded order that depends on file contents and not on file names.
        left_out: the names of the unreadable ones, each with the reason.
    """

    photographs: list[Photograph] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def readable_photographs(images: Images) -> ReadablePhotographs:
    """Return the photographs of a source after decoding each once; empty if the source draws its images.

    Raises:
        UsageError: if more than 5 % of them cannot be read.
        ComponentError: if the source raises while listing them.
    """
    if images.photographs is None:
        return ReadablePhotographs()
    with naming_errors(images):
        files = list(images.photographs())
    by_digest = {digest: Photograph(path, digest) for path in files if (digest := content_hash(path))}
    digests = sorted(by_digest)
    photographs = [by_digest[digests[i]] for i in np.random.default_rng(0).permutation(len(digests))]
    # Decoding releases the GIL, so threads run in parallel.
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        errors = list(pool.map(_read_error, photographs))
    unreadable = sorted(f"{p.name} ({error})" for p, error in zip(photographs, errors, strict=True) if error)
    if len(unreadable) > MAX_UNREADABLE * len(photographs):
        more = len(unreadable) - MAX_LISTED
        shown = ", ".join(unreadable[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
        raise UsageError(
            f"{len(unreadable)} of the {len(photographs)} images of {images.label or images.name} cannot be read, "
            f"more than {MAX_UNREADABLE:.0%}: remove or replace {shown}"
        )
    return ReadablePhotographs([p for p, error in zip(photographs, errors, strict=True) if not error], unreadable)


@cache
def _read_error(photograph: Photograph) -> str:
    """Return the reason why a photograph cannot be read; an empty string if it can."""
    try:
        read(photograph.path).close()
    except UsageError as error:
        return one_line(error.__cause__ or error)
    return ""


def read(path: Path) -> Image.Image:
    """Return a photograph as 8-bit RGB: rotated by its EXIF orientation, the first frame only, without alpha.

    Raises:
        UsageError: if the file is no image in one of `FORMATS`, or exceeds Pillow's pixel limit.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        # Between its limit and twice that, Pillow only warns. Warning filters are global, hence the lock.
        with _OPEN_LOCK, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as file:
            image = ImageOps.exif_transpose(file)
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers, whose range no file states")
            if image.mode.startswith("I"):
                # Pillow would clip 16-bit grey to 255; dividing keeps white white.
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, *_BOMB_ERRORS) as error:
        raise UsageError(f"image {str(path)!r} cannot be read ({one_line(error)}): remove or replace it") from error
