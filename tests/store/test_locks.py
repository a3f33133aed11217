"""Tests of locks: they hold between processes, and end with their process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from posbench.core.errors import UsageError
from posbench.store.locks import JobLocks, remove_stale_locks

FIRST, SECOND = "ab" * 32, "cd" * 32

#: Calls a method for each line of its input, and prints the result.
OTHER = """
import sys
from pathlib import Path
from posbench.store.locks import JobLocks

with JobLocks(Path(sys.argv[1])) as locks:
    print("ready", flush=True)
    for line in sys.stdin:
        verb, job = line.split()
        print(getattr(locks, verb)(job), flush=True)
"""


class Other:
    """Another process with locks on the same store."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, verb: str, job: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{verb} {job}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def another(store: Path) -> Iterator[Other]:
    command = [sys.executable, "-c", OTHER, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Other(process)


def test_what_one_has_in_hand_another_does_not_get(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with JobLocks(store) as locks, another(store) as other:
        assert locks.acquire(FIRST)
        assert locks.acquire(FIRST)  # whose own it is
        assert other.ask("acquire", FIRST) == "False"
        assert other.ask("acquire", SECOND) == "True"
        assert not locks.acquire(SECOND)
        assert not locks.any_free([SECOND])
        assert locks.any_free([SECOND, FIRST])
        assert locks.unfinished() == {FIRST, SECOND}
        assert other.ask("acquire", FIRST) == "False"  # for having looked, nothing is lost
        locks.release(FIRST)
        assert other.ask("acquire", FIRST) == "True"


def test_claims_end_with_their_process_which_may_be_killed(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with JobLocks(store) as locks:
        with another(store) as other:
            assert other.ask("acquire", FIRST) == "True"
            assert other.ask("acquire", SECOND) == "True"
            assert other.ask("release", SECOND) == "None"
            assert not locks.any_free([FIRST])
            other.process.kill()
        assert locks.any_free([FIRST])
        assert locks.unfinished() == {FIRST}
    # The next run learns of it, too.
    with JobLocks(store) as locks:
        assert locks.unfinished() == {FIRST}
        assert locks.acquire(FIRST)
        locks.release(FIRST)
        assert locks.unfinished() == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stored", "stays"), [({FIRST}, False), (set(), True)])
def test_what_a_death_left_goes_once_all_of_it_is_stored(stored: set[str], stays: bool, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    remove_stale_locks(store, stored.__contains__)
    assert list(tmp_path.iterdir()) == []
    with another(store) as other:
        assert other.ask("acquire", FIRST) == "True"
        remove_stale_locks(store, stored.__contains__)
        assert (tmp_path / "s.db-claims").exists()  # in use
        other.process.kill()
        other.process.wait()
    remove_stale_locks(store, stored.__contains__)
    assert (tmp_path / "s.db-claims").exists() == stays


def test_a_run_that_is_abandoned_cleanly_leaves_nothing(tmp_path: Path) -> None:
    def abandoned() -> None:
        with JobLocks(tmp_path / "s.db") as locks:
            locks.acquire(FIRST)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        abandoned()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ZeroDivisionError, None])
def test_what_went_wrong_first_is_what_is_told(
    error: type[Exception] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    def ended() -> None:
        with JobLocks(tmp_path / "s.db") as locks:
            locks.acquire(FIRST)
            monkeypatch.setattr("posbench.store.locks.os.write", full)
            if error:
                raise error

    with pytest.raises(error or UsageError, match=None if error else "No space left on device"):
        ended()


def test_the_file_stays_while_another_uses_it(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with another(store) as other:
        with JobLocks(store):
            pass
        assert (tmp_path / "s.db-claims").exists()
        assert other.ask("acquire", FIRST) == "True"
        with JobLocks(store) as locks:
            assert not locks.acquire(FIRST)
        assert other.process.stdin is not None
        other.process.stdin.close()
        other.process.wait()
    assert list(tmp_path.iterdir()) == []


def test_two_names_of_a_store_have_the_same_claims(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    (tmp_path / "link.db").symlink_to(store)
    with JobLocks(tmp_path / "link.db") as locks:
        assert locks.path == store.resolve().with_name("s.db-claims")


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"s\.db-claims'.*Not a directory.*--store"):
        JobLocks(tmp_path / "file" / "s.db")
