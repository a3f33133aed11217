"""How a process that computes jobs gets its memory from the C library."""

from __future__ import annotations

import ctypes
import os
import sys

# mallopt's parameters (malloc.h of the GNU C library).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: The environment's names for them.
NAMES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
#: Bytes of freed memory at the end of the heap that the process may keep.
KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, up to `KEPT` bytes, for what is asked for next; says whether it does.

    As a rule, large blocks come from the system and go back to it when freed, and a network's activations are such
    blocks: each batch has the system clear gigabytes anew. It holds for the whole process, so it is called where the
    process is posbench's own. Does nothing with another C library than GNU's, or where the environment has either of
    `NAMES`: the user has chosen, then.
    """
    if sys.platform != "linux" or any(name in os.environ for name in NAMES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*pair) for pair in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, KEPT)))
