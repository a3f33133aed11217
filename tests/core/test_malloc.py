"""Freed memory stays with processes that compute jobs, until the next network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
from torch import nn

from posbench.bench import cache
from posbench.core.malloc import VARIABLES
from posbench.network import build as networks
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone
from tests.command_line import SMALL, rows
from tests.conftest import Ran

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")

#: A function that returns True if a block of 100 MB stays in memory when it is freed.
STAYS = """
import resource
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def stays():
    block = bytearray(b"x") * 10**8
    before = resident()
    del block
    return resident() > before - 5 * 10**7
"""
METRIC = (
    STAYS
    + """
from posbench import Metric, hookimpl

def score(predictions, target):
    return predictions.mean((1, 2)) * 0 + stays()

@hookimpl
def posbench_metrics():
    return [Metric(name="stays", summary="", version="1", score=score)]
"""
)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def output(code: str, **environment: str) -> list[str]:
    """Run code that may call `stays` and all of `posbench.core.malloc`; return the words that it prints."""
    command = [sys.executable, "-c", "from posbench.core.malloc import *\n" + STAYS + code]
    env = os.environ | environment
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()


def test_what_is_freed_stays_once_it_is_to() -> None:
    assert output("print(stays()); keep_freed_memory(); print(stays())") == ["False", "True"]


def test_it_is_given_back_when_asked_for() -> None:
    code = "keep_freed_memory(); stays(); before = resident(); release_freed_memory()"
    assert output(f"{code}; print(resident() < before - 9 * 10**7)") == ["True"]


@pytest.mark.parametrize(
    "chosen",
    [{"MALLOC_MMAP_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}],
)
def test_who_chose_otherwise_is_left_alone(chosen: dict[str, str]) -> None:
    assert output("keep_freed_memory(); print(stays())", **chosen) == ["False"]


@pytest.mark.parametrize(
    ("entry", "more", "kept"), [("script", [], 1.0), ("main", [], 0.0), ("main", ["--jobs", "2"], 1.0)]
)
def test_the_command_and_workers_keep_it(
    entry: str, more: list[str], kept: float, tiny: str, install: Callable[..., None], posbench: Callable[..., Ran]
) -> None:
    install("posbench-stays", METRIC)
    command = [sys.executable, "-c", f"from posbench.cli import {entry}; {entry}()", "run", *SMALL, "--quiet"]
    command += ["--backbones", tiny, "--paddings", "zero,circular", "--metrics", "stays", "--csv", "-", *more]
    cells = rows(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert {float(row["stays"]) for row in cells} == {kept}


def test_it_is_given_back_between_networks(
    tiny: str, posbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[weakref.ref[nn.Module]] = []
    deleted: list[bool] = []

    def build(backbone: Backbone, weights: Weights) -> nn.Module:
        network = networks.build(backbone, weights)
        built.append(weakref.ref(network))
        return network

    def release() -> None:
        deleted.append(all(network() is None for network in built))

    monkeypatch.setattr(cache, "build", build)
    monkeypatch.setattr(cache, "release_freed_memory", release)
    both = ("--weights", "random", "--seeds", "0,1")
    assert posbench("run", "--backbones", tiny, "--paddings", "zero,circular", *SMALL, *both).code == 0
    assert deleted == [True, True]
