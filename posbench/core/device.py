"""What this machine computes with, found without importing torch, so that a plan can be made before paying for it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from posbench.core.errors import MissingError, UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")

_CAPABILITY_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_AMPERE = 8  # the first generation with bfloat16 arithmetic


@cache
def gpu_generation() -> int | None:
    """The major compute capability of the first CUDA device, asked of the driver, or None without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return None
    device, major = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device):
        return None
    return major.value


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware, as Linux reports it; elsewhere assumed not."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8", errors="replace").split()) if info.is_file() else set()
    return not flags.isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})


@cache
def memory() -> int:
    """The bytes of memory that this machine has, as far as the system tells; else more than any machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return sys.maxsize


def resolve_device(asked: str) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where there is one and torch was built for it.

    Raises:
        UsageError: if the name is none of `DEVICES`.
        MissingError: if CUDA is asked for and not there.
    """
    if asked not in DEVICES:
        raise UsageError(f"unknown device {asked!r}: choose one of {', '.join(DEVICES)}")
    usable = gpu_generation() is not None and "+cpu" not in version("torch")
    if asked == "cuda" and not usable:
        raise MissingError("no CUDA device is usable here: give --device cpu, or install a CUDA build of torch")
    return "cuda" if usable and asked != "cpu" else "cpu"


def configure_torch(device: str) -> None:
    """Set torch's process-wide options for computing jobs; call it before the process makes its first tensor.

    Args:
        device: `cpu` or `cuda`.
    """
    # NumPy asks Linux for large pages by itself, torch only with this variable. Without large pages, a sixth of the
    # time of feature extraction goes into clearing fresh memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if device == "cuda":
        import torch

        # fp32 has to be fp32: by default torch rounds the factors of convolutions to ten bits.
        torch.backends.cudnn.allow_tf32 = False


def resolve_precision(asked: str, device: str) -> str:
    """`fp32` or `bf16`; `auto` is bf16 where the device has it in hardware.

    Raises:
        UsageError: if the name is none of `PRECISIONS`.
    """
    if asked not in PRECISIONS:
        raise UsageError(f"unknown precision {asked!r}: choose one of {', '.join(PRECISIONS)}")
    if asked != "auto":
        return asked
    has_bf16 = (gpu_generation() or 0) >= _AMPERE if device == "cuda" else cpu_has_bf16()
    return "bf16" if has_bf16 else "fp32"
