"""Allocation of large tensors: in memory, or in a temporary file without a name."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from math import prod

import torch

from posbench.core.errors import UsageError

#: The largest number of bytes that is kept in memory.
IN_MEMORY = 2**29


def fits_in_memory(size: int) -> bool:
    """Return True if this many bytes may be kept in memory for the time of a job."""
    return size <= IN_MEMORY


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on the CPU is memory-mapped from a temporary file.

    A mapped tensor is used like any other. The system keeps as much of it in memory as there is room for. Its file is
    in the folder for temporary files (`TMPDIR`) and has no name, so nothing is left behind, however the process ends.

    Raises:
        UsageError: if the disk has no room for it.
    """
    size = prod(shape) * dtype.itemsize
    # Tensors made in inference mode do not count writes.
    with torch.inference_mode(False):
        if device.type != "cpu" or fits_in_memory(size):
            return torch.empty(*shape, dtype=dtype, device=device)
        return torch.frombuffer(_map_file(size), dtype=dtype).view(*shape)


def _map_file(size: int) -> mmap.mmap:
    """Map a new temporary file of this many bytes into memory."""
    try:
        with tempfile.TemporaryFile(prefix="posbench-") as file:
            # Reserve the space now: writing to a mapping on a full disk kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        where = repr(tempfile.tempdir) if tempfile.tempdir else "the folder for temporary files"
        raise UsageError(
            f"{where} has no room for {size / 1e9:.1f} GB of features ({error.strerror}): "
            "set TMPDIR to a folder on a larger disk, or give fewer images"
        ) from error
