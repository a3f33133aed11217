"""Commands that reports name: typed into another folder, they give cells of the same ids."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from posbench.reproduction import commands
from posbench.store import Store
from tests import made
from tests.conftest import Ran

Posbench = Callable[..., Ran]


def named(path: Path) -> tuple[list[str], int]:
    with Store(path, must_exist=True) as store:
        return commands(store.records(), store.readings())


def of(plan: made.Plan, path: Path) -> list[str]:
    with Store(path) as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [made.scored(cell) for cell in cells], {})
    lines, none = named(path)
    assert none == 0
    return lines


def test_what_is_crossed_is_one_line(tmp_path: Path) -> None:
    plan = made.plan(
        networks=[(made.backbone("a"), [made.TRAINED]), (made.backbone("b"), [made.TRAINED]), made.control()],
        paddings=[made.padding("zero"), made.padding("circular")],
        targets=[made.target("H"), made.target("G")],
    )
    [line] = of(plan, tmp_path / "a.db")
    assert line == (
        "posbench run --backbones a,b,none --paddings zero,circular --targets H,G --metrics spc --weights pretrained "
        "--image-size 64 --train-count 8 --test-count 4 --precision fp32"
    )


def test_what_is_no_product_is_more_lines(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        for backbone, padding in (("a", "zero"), ("a", "circular"), ("b", "zero")):
            plan = made.plan(networks=[(made.backbone(backbone), [made.TRAINED])], paddings=[made.padding(padding)])
            [(job, cells)] = plan.jobs()
            store.save(job, cells, [made.scored(cell) for cell in cells], {})
    lines, _ = named(tmp_path / "a.db")
    assert [line.split()[3:6] for line in lines] == [
        ["a", "--paddings", "zero,circular"],
        ["b", "--paddings", "zero"],
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["--weights", "random", "--seeds", "2,0", "--taps", "each", "--backbones", "tiny,none"],
        ["--weights", "random", "--controls", "null,permuted", "--metrics", "spc,modes"],
        ["--weights", "tiny=../weights & more.pt", "--images", "../my-photos", "--test-images", "leaves,black"],
        ["--weights", "random", "--readouts", "ridge,sgd", "--seeds", "1,3", "--taps", "1,3", "--score-at", "image"],
        ["--backbones", "none", "--images", "leaves,../my-photos"],
    ],
    ids=["seeds and taps", "controls", "files", "readouts", "the control alone"],
)
def test_typed_elsewhere_they_give_the_same_cells(
    options: list[str], posbench: Posbench, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-photos").mkdir()
    for i in range(4):
        Image.effect_noise((80, 80), 10 + i).convert("RGB").save(tmp_path / "my-photos" / f"{i}.png")
    if any("=" in option for option in options):
        network = __import__("posbench_tiny").build()
        torch.save(network.state_dict(), tmp_path / "weights & more.pt")
    small = ["--train-count", "6", "--test-count", "4", "--image-size", "64", "--targets", "H,G"]
    chosen = ["--backbones", tiny, "--images", "leaves", *small, *options]
    assert posbench("run", "--store", "../first.db", *chosen).code == 0
    lines, none = named(tmp_path / "first.db")
    assert lines
    assert none == 0
    # A path is its last part: those of the first run stand in the folder above.
    monkeypatch.chdir(tmp_path)
    for line in lines:
        ran = posbench(*shlex.split(line)[1:], "--store", "second.db")
        assert ran.code == 0, ran.err
    for ids in ("records", "readings"):
        first, second = (
            {getattr(one, "cell_id", None) or one.job_id for one in getattr(store, ids)()}
            for store in (Store(tmp_path / "first.db"), Store(tmp_path / "second.db"))
        )
        assert first == second


def test_what_was_made_in_python_has_no_command(tmp_path: Path) -> None:
    module = made.Weights("module:mine@12345678", "12345678" * 8)
    plan = made.plan(networks=[(made.backbone("mine"), [module]), (made.backbone("a"), [made.TRAINED])])
    with Store(tmp_path / "a.db") as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [made.scored(cell) for cell in cells], {})
    lines, none = named(tmp_path / "a.db")
    assert len(lines) == none == 1
    assert "mine" not in lines[0]
