"""Commands that reports name: typed into another folder, they give cells of the same ids."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from posbench.report.reproduce import Commands, commands
from posbench.store.store import Store
from tests import factories
from tests.conftest import Ran
from tests.rows import CONTROLS

Posbench = Callable[..., Ran]


def named(path: Path) -> Commands:
    with Store(path, must_exist=True) as store:
        return commands(store.records(), store.measurements(), CONTROLS)


def of(plan: factories.Plan, path: Path) -> list[str]:
    with Store(path) as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [factories.scored(cell) for cell in cells], {})
    given = named(path)
    assert given.nameless == 0
    return given.lines


def test_what_is_crossed_is_one_line(tmp_path: Path) -> None:
    plan = factories.plan(
        networks=[
            (factories.backbone("a"), [factories.TRAINED]),
            (factories.backbone("b"), [factories.TRAINED]),
            factories.control(),
        ],
        paddings=[factories.padding("zero"), factories.padding("circular")],
        targets=[factories.target("H"), factories.target("G")],
    )
    [line] = of(plan, tmp_path / "a.db")
    assert line == (
        "posbench run --backbones a,b,none --paddings zero,circular --targets H,G --metrics spc --weights pretrained "
        "--image-size 64 --train-count 8 --test-count 4 --precision fp32"
    )


def test_what_is_no_product_is_more_lines(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        for backbone, padding in (("a", "zero"), ("a", "circular"), ("b", "zero")):
            plan = factories.plan(
                networks=[(factories.backbone(backbone), [factories.TRAINED])], paddings=[factories.padding(padding)]
            )
            [(job, cells)] = plan.jobs()
            store.save(job, cells, [factories.scored(cell) for cell in cells], {})
    lines = named(tmp_path / "a.db").lines
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
        ["--weights", "random", "--images", "../my-photos", "--test-images", "../my-photos,leaves,black"],
        ["--weights", "random", "--metrics", "modes"],
        ["--weights", "tiny=../weights & more.pt", "--controls", "random-weights", "--seeds", "4,0,5"],
    ],
    ids=[
        "seeds and taps",
        "controls",
        "files",
        "readouts",
        "the control alone",
        "trained and tested",
        "jobs alone",
        "drawn",
    ],
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
    given = named(tmp_path / "first.db")
    assert given.lines
    assert given.nameless == 0
    # A path is its last part: those of the first run stand in the folder above.
    monkeypatch.chdir(tmp_path)
    for line in given.lines:
        ran = posbench(*shlex.split(line)[1:], "--store", "second.db")
        assert ran.code == 0, ran.err
    for ids in ("records", "measurements"):
        first, second = (
            {getattr(result, "cell_id", None) or result.job_id for result in getattr(store, ids)()}
            for store in (Store(tmp_path / "first.db"), Store(tmp_path / "second.db"))
        )
        assert first == second


def test_what_was_made_in_python_has_no_command(tmp_path: Path) -> None:
    module = factories.Weights("module:mine@12345678", "12345678" * 8)
    plan = factories.plan(
        networks=[(factories.backbone("mine"), [module]), (factories.backbone("a"), [factories.TRAINED])]
    )
    with Store(tmp_path / "a.db") as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [factories.scored(cell) for cell in cells], {})
    given = named(tmp_path / "a.db")
    assert len(given.lines) == given.nameless == 1
    assert "mine" not in given.lines[0]


def test_a_store_has_all_that_its_commands_ask_for(posbench: Posbench, tiny: str, tmp_path: Path) -> None:
    """Every control, a metric of some jobs alone, several settings, and a folder whose name is no label."""
    odd = tmp_path / 'my <b>&"photos'
    odd.mkdir()
    for i in range(4):
        Image.effect_noise((80, 80), 10 + i).convert("RGB").save(odd / f"{i}.png")
    small = ("--backbones", tiny, "--weights", "random", "--train-count", "6", "--image-size", "64", "--targets", "H,G")
    store = ("--store", str(tmp_path / "a.db"))
    for options in (
        ("--paddings", "zero,circular", "--test-count", "4", "--controls", "all"),
        ("--paddings", "zero", "--test-count", "4", "--metrics", "spc,modes", "--targets", "H"),
        ("--paddings", "zero", "--test-count", "5", "--metrics", "mae", "--images", str(odd)),
        ("--paddings", "zero", "--test-count", "4", "--metrics", "r2", "--readouts", "sgd", "--controls", "none"),
    ):
        ran = posbench("run", *small, *store, "--images", "leaves", *options)
        assert ran.code == 0, ran.err
    given = named(tmp_path / "a.db")
    [path] = given.paths
    assert given.paths[path].startswith("folder:my-b-photos@")
    assert any("--controls all" in line or "held-out-positions," in line for line in given.lines)
    for line in given.lines:
        words = [str(odd) if word == path else word for word in shlex.split(line)[1:]]
        ran = posbench(*words, *store, "--dry-run")
        assert ran.code == 0, ran.err
        assert "0 jobs with 0 cells to do" in ran.out + ran.err, line


def test_controls_scored_by_less_are_asked_for_by_themselves(posbench: Posbench, tiny: str, tmp_path: Path) -> None:
    small = ("--backbones", tiny, "--weights", "random", "--paddings", "zero", "--targets", "H", "--images", "leaves")
    small = (*small, "--train-count", "6", "--test-count", "4", "--image-size", "64", "--store", str(tmp_path / "a.db"))
    for options in (["--metrics", "spc,mae,modes"], ["--metrics", "spc", "--controls", "null,permuted"]):
        assert posbench("run", *small, *options).code == 0
    lines = named(tmp_path / "a.db").lines
    assert [("--controls" in line, "modes" in line) for line in lines] == [(False, True), (True, False)]
    for line in lines:
        ran = posbench(*shlex.split(line)[1:], "--store", str(tmp_path / "a.db"), "--dry-run")
        assert "0 jobs with 0 cells to do" in ran.out + ran.err, line
