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


def check_destinations(store: Path, files: Mapping[str, str | None]) -> None:
    """Find out before a long run, not after it, that its tables have nowhere to go.

    Args:
        files: by option; None and `-` are no files.

    Raises:
        UsageError: if one is a folder or in none, or two are the same file, or the store's.
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


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is either as before or whole: a temporary one beside it, then a rename.

    A link is followed, and what is no regular file, such as a pipe, is written to as it is.

    Raises:
        UsageError: if that fails; the file is then as it was.
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
