"""Room for large tensors: in memory, or in a file without a name that goes with the process."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from math import prod

import torch

from posbench.core.errors import UsageError

#: What has more bytes than this does not stay in memory.
IN_MEMORY = 2**29


def fits(size: int) -> bool:
    """Whether so many bytes may stay in memory for as long as a job takes."""
    return size <= IN_MEMORY


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of this shape whose values are not set, on disk if it is large and belongs to the processor.

    On disk it is mapped into memory: it is used like any other, the system keeps as much of it at hand as it has room
    for, and what it does not needs no memory. Its file is in the folder for temporary files (`TMPDIR`) and has no name,
    so nothing is left behind, however the process ends.

    Raises:
        UsageError: if the disk has no room for it.
    """
    size = prod(shape) * dtype.itemsize
    # Outside of inference mode, tensors count how often they are written to.
    with torch.inference_mode(False):
        if device.type != "cpu" or fits(size):
            return torch.empty(*shape, dtype=dtype, device=device)
        return torch.frombuffer(_mapped(size), dtype=dtype).view(*shape)


def _mapped(size: int) -> mmap.mmap:
    """So many bytes of a file without a name."""
    try:
        with tempfile.TemporaryFile(prefix="posbench-") as file:
            # Reserved now: a disk that fills up while it is written to would end the process.
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
