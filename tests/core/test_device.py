"""Devices and precisions of this machine, against torch's own answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from posbench.core import device
from posbench.core.device import configure_torch, cpu_has_bf16, gpu_generation, resolve_device, resolve_precision
from posbench.core.errors import MissingError, UsageError


def test_the_driver_says_what_torch_says() -> None:
    expected = torch.cuda.get_device_capability(0)[0] if torch.cuda.is_available() else None
    assert gpu_generation() == expected
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_processor_with_bf16_has_what_torch_asks_for() -> None:
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        assert cpu_has_bf16()
    if sys.platform != "linux":
        assert not cpu_has_bf16()


def test_the_processor_is_always_there() -> None:
    assert resolve_device("cpu") == "cpu"


def test_cuda_without_a_device_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu_generation", lambda: None)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(MissingError, match="no CUDA device is usable here: give --device cpu"):
        resolve_device("cuda")


def test_a_device_that_torch_was_not_built_for_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu_generation", lambda: 9)
    monkeypatch.setattr(device, "version", lambda package: "2.12.0+cpu")
    assert resolve_device("auto") == "cpu"
    with pytest.raises(MissingError):
        resolve_device("cuda")
    monkeypatch.setattr(device, "version", lambda package: "2.12.0")
    assert (resolve_device("auto"), resolve_device("cuda"), resolve_device("cpu")) == ("cuda", "cuda", "cpu")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:1", ""])
def test_no_such_device(name: str) -> None:
    with pytest.raises(UsageError, match="choose one of auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("precision", "where", "generation", "processor", "expected"),
    [
        ("fp32", "cuda", 9, True, "fp32"),
        ("bf16", "cpu", None, False, "bf16"),
        ("auto", "cpu", 9, False, "fp32"),
        ("auto", "cpu", None, True, "bf16"),
        ("auto", "cuda", 7, True, "fp32"),
        ("auto", "cuda", 8, False, "bf16"),
    ],
)
def test_automatic_precision_is_what_the_device_has(
    precision: str,
    where: str,
    generation: int | None,
    processor: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "gpu_generation", lambda: generation)
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: processor)
    assert resolve_precision(precision, where) == expected


def test_no_such_precision() -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp16': choose one of auto, fp32, bf16"):
        resolve_precision("fp16", "cpu")


def test_asking_the_machine_imports_no_torch() -> None:
    code = (
        "import sys; from posbench.core.device import resolve_device, resolve_precision; "
        "resolve_precision('auto', resolve_device('auto')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_convolutions_on_a_gpu_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    configure_torch("cpu")
    assert torch.backends.cudnn.allow_tf32
    configure_torch("cuda")
    assert not torch.backends.cudnn.allow_tf32
