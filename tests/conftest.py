"""What the tests share: plugins made on the fly, a tiny network, and the command line run in this process."""

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

# Scripts start what they leave in the background deaf to Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that run side by side share the cores, which torch would give to each of them.
if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    torch.set_num_threads(max(1, torch.get_num_threads() // beside))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for what they start
    # The terminal that pytest was called in, which its line editor tells of, is none of theirs.
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
    """The same random tensors in every run of a test."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a distribution of one module that entry points find: install(distribution, source, module="...")."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)  # for processes that others start

    def make(distribution: str, source: str, version: str = "1.0") -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[posbench]\n{module} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make


@pytest.fixture
def tiny(install: Callable[..., None]) -> str:
    """The name of a network of three convolutions, offered by the distribution `posbench-tiny`."""
    install("posbench-tiny", TINY)
    return "tiny"


@pytest.fixture
def posbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the command line in this process, in an empty folder, without a hub: posbench("run", "--quiet")."""
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
