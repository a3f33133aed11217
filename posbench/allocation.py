"""Keeps memory at hand that is freed and asked for again, batch after batch.

The C library of Linux hands large blocks back to the system as soon as they are freed, and the system fills each page
with zeros before it gives it out again: for the maps of a network, a tenth of the whole pass.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: What glibc allows of mappings, and what its thresholds grow to by themselves once large blocks have been freed.
_MAPPINGS, _LARGE = 65536, 2**25


@contextmanager
def kept_at_hand() -> Iterator[None]:
    """A context in which freed memory stays with the process; at its end, what is free goes back to the system.

    Elsewhere than in glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MAPPINGS)
        # Once one of them is set, they no longer grow.
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        library.malloc_trim(0)
