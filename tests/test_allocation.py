"""Freed memory stays with a process that computes jobs, and comes from there again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from posbench.allocation import NAMES

#: Prints what `keep_freed_memory` says, and how many pages the system gives for four blocks, one after the other.
BLOCKS = """
import resource, sys
from posbench.allocation import keep_freed_memory
kept = keep_freed_memory()
size = int(sys.argv[1])
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(b"x") * size
before = faults()
for _ in range(4): bytearray(b"x") * size
print(kept, (faults() - before) * resource.getpagesize())
"""


def given(size: int, **environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the bytes that four blocks of a size got from the system after a first one."""
    env = {name: value for name, value in os.environ.items() if name not in NAMES} | environment
    command = [sys.executable, "-c", BLOCKS, str(size)]
    kept, found = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()
    return kept == "True", int(found)


@pytest.mark.skipif(sys.platform != "linux", reason="of the GNU C library")
def test_blocks_come_from_what_was_freed() -> None:
    size = 100_000_000
    kept, found = given(size)
    assert kept
    assert found < size / 10


def test_who_chose_otherwise_is_left_alone() -> None:
    size = 100_000_000
    kept, found = given(size, MALLOC_MMAP_MAX_="65536")
    assert not kept
    assert found > 3 * size
