"""The C library's memory allocation in processes that compute jobs."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# Parameters of `mallopt` (malloc.h of the GNU C library).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: The largest threshold that `mallopt` takes, in bytes: above it, free memory at the heap's end is returned at once.
LARGEST_THRESHOLD = 2**31 - 1
#: Environment variables, and names in GLIBC_TUNABLES, by which a user has configured malloc already.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = ("glibc.malloc.trim", "glibc.malloc.mmap")

_keeps_memory = False


def request_huge_pages() -> None:
    """Have torch ask Linux for huge pages, as NumPy does by itself; call it before torch's first tensor.

    Without huge pages, a sixth of the time of extraction goes into page faults.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for later allocations of this process, until `release_freed_memory`.

    By default, malloc maps large blocks such as activations from the system and unmaps them when freed, so that each
    batch has the system clear gigabytes anew. The setting holds for the whole process: call it only in processes that
    are posbench's own. Does nothing with another C library than GNU's, or if the user has configured malloc.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    configured = any(name in os.environ for name in VARIABLES) or any(name in tunables for name in TUNABLES)
    global _keeps_memory
    if (libc := _glibc()) and not configured:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, LARGEST_THRESHOLD)
        _keeps_memory = True


def release_freed_memory() -> None:
    """Return kept memory to the system, before allocations of other sizes."""
    if _keeps_memory and (libc := _glibc()):
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library, if it is GNU's."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
