"""A folder of the user's own images as a source."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from posbench.core.errors import UsageError
from posbench.plugin.components import Images

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def folder_images(folder: Path) -> Images:
    """Every image file below a folder, as a source labelled `folder:NAME@hash8` by the content of its files.

    Args:
        folder: an existing directory. It is walked without following links to directories.

    Raises:
        UsageError: if no regular file below it has an image's suffix. What is none, such as a pipe or a link that leads
            nowhere, is among its photographs, to be told of as one that cannot be read.
    """
    files = sorted(
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    if not any(path.is_file() for path in files):
        raise UsageError(f"image folder {str(folder)!r} holds no image: expected files such as .jpg or .png in it")
    digest = content_digest(files)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._") or "images"
    return Images(
        name=f"folder:{name}",
        summary=f"{len(files)} images in a folder",
        version=digest,
        label=f"folder:{name}@{digest[:8]}",
        photographs=lambda: files,
    )


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 of what a set of files holds, whatever they are called, how often and in whatever order they come."""
    digests = sorted({content_hash(path) for path in files})
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; read again only if the file has changed.

    What is no regular file has no content, and goes by its name: reading a pipe would wait for ever.

    Raises:
        UsageError: if the file cannot be read.
    """
    if not path.is_file() and (path.is_symlink() or path.exists()):
        return hashlib.sha256(b"no regular file: " + os.fsencode(path.name)).hexdigest()
    try:
        status = path.stat()
        return _content_hash(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error.strerror}): remove or replace it") from error


def regular_file(path: Path, largest: int) -> bytes:
    """What a regular file holds.

    Raises:
        OSError: if it is none, such as a pipe or a device, or holds more bytes than `largest`.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest >> 20} MB")
    return content


def user_path(text: str) -> Path:
    """A path as a user wrote it, with `~` resolved.

    Raises:
        UsageError: if no file could be called so.
    """
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{text[:80]!r} cannot be a path: {error}") from error
    return path


@cache
def _content_hash(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
