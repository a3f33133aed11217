"""Locks on jobs, so that runs that share a store do not compute the same job.

Beside the store lies a file, `STORE-claims`, while a run computes anything. A lock on one byte of it, far beyond its
end, locks a job; the operating system releases the locks of a process however it ends. The file lists the ids of jobs
that were begun and ended: one that was begun, is not locked and has not ended was being computed when its process died.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from posbench.core.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has other locks; there, a job that two runs compute at the same time is computed twice
    fcntl = None  # type: ignore[assignment]

#: The bytes that lock jobs begin here; the last one is locked by every run that uses the file.
FIRST, LAST = 2**60, 2**62
BEGUN, ENDED = "+", "-"
_LINE = re.compile(r"([+-])([0-9a-f]{64})\n")


class JobLocks:
    """The locks that one run holds; use it as a context manager, which releases them all.

    A process may have one of them a store at a time: these locks do not exclude their own process, and closing the
    file once releases them all.

    Raises:
        UsageError: if the file beside it cannot be written.
    """

    #: The files that this process has open.
    _open: ClassVar[set[Path]] = set()

    def __init__(self, store: Path) -> None:
        self.path = _beside(store)
        self._held: set[str] = set()
        try:
            self._file = self._open_file()
        except OSError as error:
            raise UsageError(
                f"{str(self.path)!r}, which tells other runs what this one has in hand, cannot be written "
                f"({error.strerror}): check the folder, its rights and the disk, or name another store with --store"
            ) from error

    def _open_file(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            # The last run before this one may be removing the file, or have removed it since it was opened.
            with suppress(FileNotFoundError):
                if self._lock(file, LAST, shared=True) and os.path.samestat(os.fstat(file), self.path.stat()):
                    return file
            os.close(file)

    @staticmethod
    def _lock(file: int, place: int, *, shared: bool = False) -> bool:
        """Lock a byte unless another process has; a lock that is already held changes to the given kind."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, job: str) -> None:
        if fcntl is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(job))

    def acquire(self, job: str) -> bool:
        """Lock a job by its id; return whether this run holds the lock now."""
        if job not in self._held and self._lock(self._file, _place(job)):
            self._held.add(job)
            self._write(BEGUN, job)
        return job in self._held

    def release(self, job: str) -> None:
        """Unlock a job: it is stored, or this run does not compute it after all."""
        if job in self._held:
            self._write(ENDED, job)
            self._held.remove(job)
            self._unlock(job)

    def any_free(self, jobs: Iterable[str]) -> bool:
        """Return whether `acquire` would succeed for one of these jobs."""
        for job in jobs:
            if job in self._held:
                return True
            if self._lock(self._file, _place(job)):
                self._unlock(job)
                return True
        return fcntl is None

    def unfinished(self) -> set[str]:
        """Return the ids of jobs that a run computes, or was computing when its process died."""
        # Not by the file's name: closing it anywhere would release all of the process's locks on it.
        text = os.pread(self._file, os.fstat(self._file).st_size, 0).decode(errors="replace")
        marks = {job: mark for mark, job in _LINE.findall(text)}
        return {job for job, mark in marks.items() if mark == BEGUN}

    def mark_stored(self, stored: Callable[[str], bool], but: Set[str] = frozenset()) -> None:
        """Mark stored jobs of dead processes as ended: most likely, the processes died after storing them.

        `stored` tells whether a job's results are in the store, by its id; jobs in `but` are left as they are.
        """
        for job in self.unfinished() - but:
            if stored(job) and self.acquire(job):
                self.release(job)

    def _write(self, mark: str, job: str) -> None:
        try:
            line = f"{mark}{job}\n".encode()
            # On a disk that is almost full, the beginning may still fit.
            if (written := os.write(self._file, line)) < len(line):
                os.write(self._file, line[written:])
        except OSError as error:
            raise UsageError(
                f"{str(self.path)!r} cannot be written ({error.strerror}): make room on the disk, or name another "
                "store with --store"
            ) from error

    def __enter__(self) -> JobLocks:
        self._open.add(self.path)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            for job in list(self._held):
                self.release(job)
            # The last run removes the file, unless it lists jobs of a process that died.
            if self._lock(self._file, LAST) and not self.unfinished():
                self.path.unlink(missing_ok=True)
        except (OSError, UsageError):
            if error is None:
                raise  # otherwise, the user should read of the first error
        finally:
            self._open.discard(self.path)
            os.close(self._file)


def remove_stale_locks(store: Path, stored: Callable[[str], bool]) -> None:
    """Remove the file that killed runs have left beside a store, if all of their jobs are stored.

    The file stays if another run uses it, or if a job that was begun is not stored. It also stays if it cannot be
    removed: the caller has nothing to compute, and the file does no harm. `stored` is that of `mark_stored`.
    """
    path = _beside(store)
    if path.exists() and path not in JobLocks._open:
        with suppress(OSError, UsageError), JobLocks(store) as locks:
            locks.mark_stored(stored)


def _beside(store: Path) -> Path:
    resolved = store.resolve()
    return resolved.with_name(resolved.name + "-claims")


def _place(job: str) -> int:
    """Return the byte that locks a job: of a hundred thousand jobs, two share one with a probability of 10⁻⁸."""
    return FIRST + int(job[:15], 16)
