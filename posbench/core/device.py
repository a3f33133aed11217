"""The device and precision that this machine computes with, determined without importing torch."""

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
    """Return the major compute capability of the first CUDA device, as the driver reports it, or None without one."""
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
    """Return True if Linux reports that the processor multiplies bfloat16 in hardware; False on other systems."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8", errors="replace").split()) if info.is_file() else set()
    return not flags.isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})


@cache
def memory() -> int:
    """Return this machine's memory in bytes; `sys.maxsize` where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return sys.maxsize


def resolve_device(name: str) -> str:
    """Return `cpu` or `cuda`; `auto` is the GPU if there is one and torch was built for it.

    Raises:
        UsageError: if the name is not in `DEVICES`.
        MissingError: for `cuda` without a usable CUDA device.
    """
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}: choose one of {', '.join(DEVICES)}")
    usable = gpu_generation() is not None and "+cpu" not in version("torch")
    if name == "cuda" and not usable:
        raise MissingError("no CUDA device is usable here: give --device cpu, or install a CUDA build of torch")
    return "cuda" if usable and name != "cpu" else "cpu"


def resolve_precision(name: str, device: str) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 if the device computes it in hardware.

    Raises:
        UsageError: if the name is not in `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    has_bf16 = (gpu_generation() or 0) >= _AMPERE if device == "cuda" else cpu_has_bf16()
    return "bf16" if has_bf16 else "fp32"


def configure_torch(device: str) -> None:
    """Make float32 convolutions exact on a GPU, for the whole process.

    By default, cuDNN rounds their factors to TF32, with ten bits of mantissa.
    """
    if device == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False
