"""Memory that is freed stays at hand while it is wanted, and no longer."""

from __future__ import annotations

import platform
import subprocess
import sys

#: Prints by how many megabytes the process has grown with a tensor, without it, and after the context.
GROWTH = """
import os, torch
from posbench.allocation import kept_at_hand

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

first = resident()
with kept_at_hand():
    tensor = torch.ones(50_000_000)
    print(resident() - first)
    del tensor
    print(resident() - first)
print(resident() - first)
"""


def test_what_is_freed_stays_until_the_end() -> None:
    if platform.libc_ver()[0] != "glibc":
        subprocess.run([sys.executable, "-c", GROWTH.split("def")[0] + "with kept_at_hand(): pass"], check=True)
        return
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    with_it, without_it, after = map(float, done.stdout.split())
    assert with_it > 190
    assert without_it > 190
    assert after < 50
