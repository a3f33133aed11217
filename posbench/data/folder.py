"""A folder of the user's own images as a source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from posbench.core.errors import UsageError
from posbench.core.files import content_digest
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
