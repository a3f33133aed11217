"""How a process that computes jobs gets its memory from the C library, and when it gives it back."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# mallopt's parameters (malloc.h of the GNU C library).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: Once more bytes are free at the heap's end, these are given back at once; mallopt takes no larger number.
MOST = 2**31 - 1
#: With these in an environment the user has chosen; the second stand for names in GLIBC_TUNABLES.
NAMES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = ("glibc.malloc.trim", "glibc.malloc.mmap")

#: Whether freed memory is kept.
_keeps = False


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees for what it asks for next, until `give_back`.

    As a rule large blocks come from the system and go back to it when freed, and a network's activations are such
    blocks: each batch has the system clear gigabytes anew. It holds for the whole process, so it is called where the
    process is posbench's own. Does nothing with a C library that is not GNU's, or where the user has chosen how it is
    to be.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    chosen = any(name in os.environ for name in NAMES) or any(name in tunables for name in TUNABLES)
    global _keeps
    if (libc := _gnu()) and not chosen:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, MOST)
        _keeps = True


def give_back() -> None:
    """Give the system what is kept, since what comes next asks for other blocks."""
    if _keeps and (libc := _gnu()):
        libc.malloc_trim(0)


@cache
def _gnu() -> ctypes.CDLL | None:
    """The C library, if it is GNU's."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
