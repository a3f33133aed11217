"""Fixtures that all tests share: temporary plugins, a tiny network, and the command line in this process."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from posbench import cli

# Shells start background processes with SIGINT ignored; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Parallel test processes share the cores; torch would use all of them in each.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for subprocesses
    # Tests must not depend on the size of the terminal that pytest was started in.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)

TINY = """
from posbench import Backbone, hookimpl


def build():
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, stride=4, padding=1)
            self.two = nn.Conv2d(8, 12, 3, stride=2, padding=1)
            self.three = nn.Conv2d(12, 16, 3, stride=2, padding=1)

        def forward(self, x):
            first = self.one(x).relu()
            second = self.two(first).relu()
            return [first, second, self.three(second).relu()]

    return Tiny()


@hookimpl
def posbench_backbones():
    return [Backbone(name="tiny", summary="three convolutions", version="1", build=build, taps=3)]
"""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, so that every run of a test draws the same tensors."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution of one module with an entry point: install(distribution, source)."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)  # for processes that others start

    def install_module(distribution: str, source: str, version: str = "1.0") -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[posbench]\n{module} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install_module


@pytest.fixture
def tiny(install: Callable[..., None]) -> str:
    """Install a network of three convolutions as the distribution `posbench-tiny`; return its name."""
    install("posbench-tiny", TINY)
    return "tiny"


@pytest.fixture
def posbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process, in an empty folder and without the hub: posbench("run", "--quiet")."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["posbench", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
