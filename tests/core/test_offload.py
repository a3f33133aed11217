"""Large features on disk: nothing else about them changes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from posbench.builtin.readouts.ridge import fit_ridge
from posbench.core import offload
from posbench.core.errors import UsageError
from posbench.core.malloc import keep_freed_memory
from posbench.core.offload import empty
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone
from posbench.plugin.features import Features
from posbench.runner.jobs import JobRunner
from posbench.runner.worker import InProcessPool
from posbench.store.store import Store
from tests.bench.test_engine import plan

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_on_disk_is_like_any_other(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(offload, "IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = torch.randn(3, 5, 7).to(dtype)
    mapped = empty((3, 5, 7), dtype, CPU)
    mapped.copy_(values)
    assert torch.equal(mapped, values)
    mapped[1] += 1
    assert torch.equal(mapped[1], values[1] + 1)
    # The file has no name, even while it is in use.
    assert not list(tmp_path.iterdir())


def test_small_tensors_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    assert empty((4, 4), torch.float32, CPU).shape == (4, 4)


def test_a_full_disk_is_one_line_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(offload, "IN_MEMORY", 100)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match=r"no room for 4\.0 GB .*No space left.*set TMPDIR"):
        empty((1000, 1000, 1000), torch.float32, CPU)


def test_images_chosen_from_features_on_disk_are_those(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features((torch.randn(6, 4, 4, 3), torch.randn(6, 2, 2, 5)), 4)
    targets = torch.rand(2, 2, 2)
    expected = features.of_images([4, 0, 1])
    monkeypatch.setattr(offload, "IN_MEMORY", 0)
    on_disk = features.of_images([4, 0, 1])
    for tap, expected_tap in zip(on_disk.taps, expected.taps, strict=True):
        assert torch.equal(tap, expected_tap)
    first, second = (fit_ridge(own, targets, kernel=3, penalty=1.0).predict(features) for own in (on_disk, expected))
    assert torch.equal(first, second)


class Wide(nn.Module):
    """A network with one tap of 512 channels: 5 000 images of it take 655 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 512, 3, stride=8, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.one(x).relu()]


def five_thousand_images(path: str, in_memory: int, room: int) -> None:
    """Run a job in this process, whose memory may not grow by more than `room` bytes; exit with 0 if that suffices."""
    keep_freed_memory()
    torch.set_num_threads(2)
    torch.linalg.eigh(torch.rand(64, 64) @ torch.rand(64, 64).T)  # start the threads, which take memory of their own
    offload.IN_MEMORY = in_memory
    [used] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
    limit = int(used.split()[1]) * 1024 + room
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    backbone = Backbone(name="wide", summary="", version="1", build=Wide, taps=1)
    wide = plan(networks=[(backbone, [Weights("random:0", seed=0)])], n_train=5000, n_test=64)
    with Store(Path(path)) as store:
        [(_, result)] = JobRunner(store, InProcessPool(wide, "cpu")).run(wide.tasks())
    sys.exit(result.failures[0] if result.failures else 0)


@pytest.mark.long
@pytest.mark.parametrize("spilled", [True, False])
def test_memory_does_not_grow_with_the_number_of_images(spilled: bool, tmp_path: Path) -> None:
    in_memory = 2**26 if spilled else 2**40
    process = multiprocessing.get_context("spawn").Process(
        target=five_thousand_images, args=(str(tmp_path / "store.db"), in_memory, 500 * 2**20)
    )
    process.start()
    process.join()
    # In memory alone the same room does not suffice, so the limit is a real one.
    assert (process.exitcode == 0) == spilled
