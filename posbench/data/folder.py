"""Folders of the user's own images as a source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from posbench.core.errors import UsageError
from posbench.core.files import content_digest
from posbench.plugin.components import Images

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def folder_images(folder: Path) -> Images:
    """Return the image files below a folder as a source labelled `folder:NAME@hash8` by the content of its files.

    Args:
        folder: an existing directory; links to directories are not followed. A pipe or a broken link with an image's
            suffix is included, and later reported as unreadable.

    Raises:
        UsageError: if no regular file below the folder has an image's suffix.
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
