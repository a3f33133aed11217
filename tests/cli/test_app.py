"""The application: help, wrong usage, interruption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from posbench import __version__
from posbench.cli.commands import COMMANDS
from tests.command_line import RUN, Install, Posbench, rows
from tests.conftest import Ran

SLOW = """
import os, time
from pathlib import Path
from posbench import Backbone, hookimpl


def build():
    import torch
    from torch import nn

    class Slow(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, stride=4, padding=1)

        def forward(self, x):
            if x.device.type != "meta":
                Slow.calls += 1
                if Slow.calls == 4 and "BLOCK" in os.environ:  # 12 training images are two batches, 6 test images one
                    Path(os.environ["BLOCK"]).touch()
                    time.sleep(120)
            return [self.one(x).relu()]

    return Slow()


@hookimpl
def posbench_backbones():
    return [Backbone(name="slow", summary="", version="1", build=build, taps=1)]
"""


def test_ctrl_c_keeps_what_had_finished(install: Install, tmp_path: Path) -> None:
    install("posbench-slow", SLOW)
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", "from posbench.cli import main; main()", *RUN, "--backbones", "slow"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**environment, "BLOCK": str(ready)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not ready.exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "interrupted after 1 of 2 jobs; they are stored in 'posbench.db'" in err
    assert "Traceback" not in err
    resumed = subprocess.run(
        [*command, "--csv", "-"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "1 jobs computed, 1 found" in resumed.stderr
    assert [row["status"] for row in rows(resumed.stdout)] == ["ok"] * 4


def test_a_reader_that_stops_listening_sees_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'from posbench.cli import main; main()' list backbones | head -n 1"
    ran = subprocess.run(["bash", "-c", command], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "backbones" in ran.stdout
    assert ran.stderr == ""


def test_version_and_help(posbench: Posbench) -> None:
    assert posbench("--version").out == f"posbench {__version__}\n"
    helped = posbench("--help")
    assert helped.code == 0
    for command in ("run", "list", "plugins", "leaderboard", "show", "doctor"):
        assert re.search(rf"\b{command}\b", helped.out)


@pytest.mark.parametrize("arguments", [("run", "--no-such-option"), ("walk",), ("run", "--image-size", "big")])
def test_wrong_usage_exits_2(arguments: tuple[str, ...], posbench: Posbench) -> None:
    ran = posbench(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_first_line_of_the_commands_docstring(name: str) -> None:
    module, _, function = COMMANDS[name].function.partition(":")
    documentation = getattr(import_module(f"posbench.cli.{module}"), function).__doc__
    assert documentation.splitlines()[0] == COMMANDS[name].summary


def test_an_unknown_command_is_answered_with_the_nearest(posbench: Posbench) -> None:
    assert posbench("lst") == Ran(2, "", "posbench: No such command 'lst'. Did you mean 'list'?\n")


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "posbench", "--version"]
    ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == f"posbench {__version__}\n"
