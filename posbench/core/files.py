"""Hashes, atomic writes and checks of files and paths."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from posbench.core.errors import UsageError


def content_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the contents of a set of files, independent of names, order and duplicates."""
    digests = sorted({content_hash(path) for path in files})
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; an unchanged file is read once.

    A pipe or another irregular file is never read, since that could block: its name is hashed instead.

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


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: if the file is not a regular one (a pipe, a device), cannot be read, or has more than `max_bytes`.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes >> 20} MB")
    return content


def user_path(text: str) -> Path:
    """Return the path that a user wrote, with `~` expanded.

    Raises:
        UsageError: if the text cannot be a path, for example because it is too long.
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


def check_destinations(store: Path, files: Mapping[str, str | None]) -> None:
    """Check, before a long run starts, that its output files can be written.

    Args:
        store: the file of the store, which no output may overwrite.
        files: the file name given to each option; None and `-` mean no file.

    Raises:
        UsageError: if a file is a folder, its folder is missing or not writable, or two options name the same file.
    """
    taken = {store.resolve(): "--store"}
    for option, name in files.items():
        if name in (None, "-"):
            continue
        path = user_path(str(name))
        if path.resolve() in taken:
            raise UsageError(f"{option} {name!r} is the file of {taken[path.resolve()]}: name another")
        taken[path.resolve()] = option
        if path.is_dir():
            raise UsageError(f"{option} {name!r} is a folder: name a file")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {name!r}: there is no folder {str(path.parent)!r}; make it first")
        if not path.exists() and not os.access(path.parent, os.W_OK):
            raise UsageError(f"{option} {name!r}: nothing can be written to folder {str(path.parent)!r}; name another")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, by renaming a temporary file: readers see the old content or the new, no mixture.

    A link is followed. A pipe or another irregular file is written to directly.

    Raises:
        UsageError: if writing fails; the file is then unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be written ({error.strerror}): check the folder and the disk"
        ) from error
