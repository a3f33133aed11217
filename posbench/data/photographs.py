"""The photographs of a source: which of its files are images that can be read, and their pixels."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from posbench.core import text as legible
from posbench.core.errors import UsageError, one_line
from posbench.core.files import content_hash
from posbench.plugin.components import Images
from posbench.plugin.sandbox import naming_errors

#: The share of a source's photographs that may be unreadable: more is a fault of the folder, not of a few files.
MOST_UNREADABLE = 0.05
#: How many photographs are decoded at once, at most: each is held whole.
MOST_THREADS = 8
#: How many files an error lists.
LISTED = 20
#: What is decoded, whatever a file is called. Pillow has more: it hands PostScript to another program to run.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_OPENING = threading.Lock()


@dataclass(frozen=True)
class Photograph:
    """A file and the hash of its content; equal content is one photograph, whatever it is called."""

    path: Path
    digest: str

    @property
    def name(self) -> str:
        """`STEM@hash8`, in characters that every table and terminal can hold."""
        return f"{legible.name(self.path.stem)}@{self.digest[:8]}"


@dataclass(frozen=True)
class ReadablePhotographs:
    """The distinct photographs of a source.

    Attributes:
        photographs: those that can be read, in a seeded order of the content of all: renaming a file changes nothing.
        left_out: the others, by name, and why.
    """

    photographs: list[Photograph] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def readable_photographs(images: Images) -> ReadablePhotographs:
    """The photographs of a source, each of them decoded once to see that it can be; none if it draws its images.

    Raises:
        UsageError: if more than 5 % of them cannot be read.
        ComponentError: if the source cannot say which they are.
    """
    if images.photographs is None:
        return ReadablePhotographs()
    with naming_errors(images):
        files = list(images.photographs())
    found = {digest: Photograph(path, digest) for path in files if (digest := content_hash(path))}
    ordered = sorted(found)
    photographs = [found[ordered[i]] for i in np.random.default_rng(0).permutation(len(ordered))]
    # Decoding lets go of the interpreter, so threads share the work.
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        faults = list(pool.map(_fault, photographs))
    bad = sorted(f"{one.name} ({fault})" for one, fault in zip(photographs, faults, strict=True) if fault)
    if len(bad) > MOST_UNREADABLE * len(photographs):
        shown = ", ".join(bad[:LISTED]) + (f" and {len(bad) - LISTED} more" if len(bad) > LISTED else "")
        raise UsageError(
            f"{len(bad)} of the {len(photographs)} images of {images.label or images.name} cannot be read, more than "
            f"{MOST_UNREADABLE:.0%}: remove or replace {shown}"
        )
    return ReadablePhotographs([one for one, fault in zip(photographs, faults, strict=True) if not fault], bad)


@cache
def _fault(photograph: Photograph) -> str:
    """Why a photograph cannot be read, or nothing."""
    try:
        read(photograph.path).close()
    except UsageError as error:
        return one_line(error.__cause__ or error)
    return ""


def read(path: Path) -> Image.Image:
    """A photograph as 8-bit RGB, upright as its EXIF orientation says: the first image of several, without its alpha.

    Raises:
        UsageError: if the file is no image of these formats, or larger than Pillow's limit.
    """
    with _explained(path), _opened(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers, whose range no file states")
        if image.mode.startswith("I"):
            # Pillow would clip 16-bit grey to 255; white stays white so.
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
        return image.convert("RGB")


def _opened(path: Path) -> Image.Image:
    """The image, undecoded."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    # Pillow only warns of what is up to twice as large as its limit. Warnings are the whole process's, hence the lock.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what Pillow raises about a file into one line that names it."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
        raise UsageError(f"image {str(path)!r} cannot be read ({one_line(error)}): remove or replace it") from error
