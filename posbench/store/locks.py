"""Which jobs a run has in hand, where several runs share one store.

Beside the store lies a file, `STORE-claims`, while anything is computed for it. To claim a job is to lock one byte of
that file, at a place far beyond its end that the job's id gives. The system lets go of a process's locks however it
ends, so a claim never outlives its run. What the file holds are the ids of jobs begun and ended, a line each: a job
that was begun, is not locked and has not ended was in hand when its process died.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from posbench.core.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has other locks; there a job that two runs have in hand at once is computed twice
    fcntl = None  # type: ignore[assignment]

#: Jobs are locked from here on, each at a byte of its own; the last one says that somebody uses the file.
FIRST, LAST = 2**60, 2**62
BEGUN, ENDED = "+", "-"
_LINE = re.compile(r"([+-])([0-9a-f]{64})\n")


class JobLocks:
    """The claims of one run; use it as a context manager, which lets go of them all.

    A process has one of them a store at a time: these locks do not keep a process from itself, and closing the file
    once is to lose them all.

    Args:
        store: the store's file.

    Raises:
        UsageError: if the file beside it cannot be written.
    """

    #: The files that this process has open.
    _open: ClassVar[set[Path]] = set()

    def __init__(self, store: Path) -> None:
        self.path = _beside(store)
        self._held: set[str] = set()
        try:
            self._file = self._opened()
        except OSError as error:
            raise UsageError(
                f"{str(self.path)!r}, which tells other runs what this one has in hand, cannot be written "
                f"({error.strerror}): check the folder, its rights and the disk, or name another store with --store"
            ) from error

    def _opened(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            # The last run before this one may be removing the file, or have done so since it was opened.
            if self._locked(file, LAST, shared=True) and self._is_there(file):
                return file
            os.close(file)

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    @staticmethod
    def _locked(file: int, place: int, *, shared: bool = False) -> bool:
        """Lock a byte, if nobody else has; a lock that is held is changed to the kind asked for."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def take(self, job: str) -> bool:
        """Claim a job by its id; whether it is this run's now."""
        if job not in self._held:
            if not self._locked(self._file, _place(job)):
                return False
            self._held.add(job)
            self._write(BEGUN, job)
        return True

    def drop(self, job: str) -> None:
        """Let go of a job that was taken: it is stored, or abandoned cleanly."""
        if job in self._held:
            self._write(ENDED, job)
            self._held.remove(job)
            if fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(job))

    def free(self, jobs: Iterable[str]) -> bool:
        """Whether any of these jobs could be taken now."""
        if fcntl is None:
            return True
        for job in jobs:
            if job in self._held:
                return True
            if self._locked(self._file, _place(job)):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(job))
                return True
        return False

    def unfinished(self) -> set[str]:
        """The ids of jobs that are in some run's hand, or were when its process died."""
        # Not by its name: to close a file is to lose all of the process's locks on it, however else it is open.
        text = os.pread(self._file, os.fstat(self._file).st_size, 0).decode(errors="replace")
        marks = {job: mark for mark, job in _LINE.findall(text)}
        return {job for job, mark in marks.items() if mark == BEGUN}

    def mark_stored(self, stored: Callable[[str], bool], but: Set[str] = frozenset()) -> None:
        """Note as ended, but for some, the jobs of dead processes that are stored: they died right after it, as a rule.

        Args:
            stored: whether a job's results are in the store, by its id.
        """
        for job in self.unfinished() - but:
            if stored(job) and self.take(job):
                self.drop(job)

    def _write(self, mark: str, job: str) -> None:
        try:
            line = f"{mark}{job}\n".encode()
            # On a disk that fills up, the beginning may still fit.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for job in list(self._held):
                self.drop(job)
            # Whoever is the last one leaves nothing behind, unless there is a death to tell of.
            if self._locked(self._file, LAST) and not self.unfinished():
                self.path.unlink(missing_ok=True)
        except (OSError, UsageError):
            if error is None:
                raise  # what has gone wrong before is what the user should hear
        finally:
            self._open.discard(self.path)
            os.close(self._file)


def remove_stale_locks(store: Path, stored: Callable[[str], bool]) -> None:
    """Remove what runs that were killed have left beside a store, if it has all that they had in hand.

    It stays where others use it and where a job in hand was lost. Where it cannot be removed it stays as well: who asks
    has nothing to compute, and what is left does no harm.

    Args:
        store: the store's file.
        stored: whether a job's results are in the store, by its id.
    """
    path = _beside(store)
    if path.exists() and path not in JobLocks._open:
        with suppress(OSError, UsageError), JobLocks(store) as claims:
            claims.mark_stored(stored)


def _beside(store: Path) -> Path:
    resolved = store.resolve()
    return resolved.with_name(resolved.name + "-claims")


def _place(job: str) -> int:
    """The byte that stands for a job: two of a hundred thousand share one with a probability of 10⁻⁸."""
    return FIRST + int(job[:15], 16)
