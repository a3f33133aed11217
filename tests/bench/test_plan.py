"""Jobs, cells and passes counted by hand, and identities that change with what they are of."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.bench.plan import Cell, Job, Source, grid_side, identify, make_plan, passes
from posbench.bench.taps import parse_taps, tap_numbers
from posbench.core.errors import UsageError
from posbench.network.weights import NONE, Weights
from posbench.plugin.components import Checkpoint, Images, Metric
from posbench.plugin.control import Control
from posbench.plugin.registry import load_registry
from tests.factories import (
    FILE_HASH,
    NET,
    PHOTO_HASH,
    TRAINED,
    UNTRAINED,
    backbone,
    control,
    folder,
    metric,
    never,
    padding,
    plan,
    plan_inputs,
    readout,
    target,
)

RANDOM = [Weights(f"random:{seed}", seed=seed) for seed in (0, 1, 2)]
TWO_SOURCES = [(folder(name), folder(name)) for name in ("photos", "leaves")]


def counts(**changes: Any) -> tuple[int, int, int]:
    """Jobs, cells and passes."""
    made = plan(**changes)
    jobs = list(made.jobs())
    assert len({job.id for job, _ in jobs}) == len(jobs)
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    return len(jobs), len(made.cells), passes(made.tasks())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1, 1, 1)),
        ({"paddings": [padding(name) for name in "abc"], "targets": [target(name) for name in "HVGXY"]}, (3, 15, 3)),
        # The readout on RGB alone: one job a source, whatever paddings were asked for; no network to pass.
        ({"networks": [control()], "paddings": [padding(name) for name in "abc"], "sources": TWO_SOURCES}, (2, 2, 0)),
        (
            {
                "networks": [(NET, [TRAINED]), control()],
                "paddings": [padding(name) for name in "abc"],
                "targets": [target(name) for name in "HV"],
                "sources": TWO_SOURCES,
            },
            (8, 16, 6),
        ),
        # Random weights: each seed is a network of its own. Ridge needs no seed.
        ({"networks": [(NET, RANDOM)], "seeds": [0, 1, 2]}, (3, 3, 3)),
        ({"seeds": [0, 1, 2]}, (1, 1, 1)),
        ({"seeds": [0, 1, 2], "networks": [control()]}, (1, 1, 0)),
        # A stochastic readout is fitted once a seed, from the same pass.
        ({"seeds": [0, 1, 2], "readouts": [readout("sgd", stochastic=True), readout()]}, (1, 4, 1)),
        ({"taps": ["all", "1", "2+3"]}, (1, 3, 1)),
        # Metrics are columns.
        ({"metrics": [metric(name) for name in "abcd"]}, (1, 1, 1)),
        ({"networks": []}, (0, 0, 0)),
    ],
)
def test_counts(changes: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert counts(**changes) == expected


@given(
    networks=st.integers(1, 3),
    seeds=st.integers(1, 3),
    paddings=st.integers(1, 3),
    targets=st.integers(1, 3),
    sources=st.integers(1, 2),
    with_control=st.booleans(),
    stochastic=st.booleans(),
)
def test_counts_are_products(
    networks: int, seeds: int, paddings: int, targets: int, sources: int, *, with_control: bool, stochastic: bool
) -> None:
    nets: list[Any] = [(backbone(f"net{i}"), [TRAINED]) for i in range(networks)]
    found = counts(
        networks=nets + [control()] * with_control,
        seeds=range(seeds),
        paddings=[padding(f"p{i}") for i in range(paddings)],
        targets=[target(f"t{i}") for i in range(targets)],
        sources=[(folder(f"s{i}"), folder(f"s{i}")) for i in range(sources)],
        readouts=[readout(stochastic=stochastic)],
    )
    passes = networks * paddings * sources
    jobs = passes + sources * with_control
    assert found == (jobs, jobs * targets * (seeds if stochastic else 1), passes)


def test_the_control_has_neither_weights_nor_padding() -> None:
    [cell] = plan(networks=[control()]).cells
    assert cell.job.padding is None
    assert cell.job.weights == NONE
    assert cell.identity()["padding"] == {"name": "none", "version": ""}
    assert cell.seed is None


def test_a_network_is_kept_for_all_its_jobs_and_the_cells_of_a_fit_stand_together() -> None:
    cells = plan(
        networks=[(backbone("a"), RANDOM[:2]), (backbone("b"), [TRAINED])],
        paddings=[padding(name) for name in ("zero", "circular")],
        targets=[target(name) for name in "HV"],
        readouts=[readout("sgd", stochastic=True)],
        sources=TWO_SOURCES,
        seeds=[0, 1],
    ).cells

    def runs(key: Callable[[Cell], object]) -> int:
        """How often a key changes from cell to cell, and the first."""
        keys = [key(cell) for cell in cells]
        return 1 + sum(a != b for a, b in pairwise(keys))

    assert runs(lambda cell: (cell.job.backbone.name, cell.job.weights.label)) == 3
    assert runs(lambda cell: (cell.job.backbone.name, cell.job.weights.label, cell.job.padding)) == 6
    assert runs(lambda cell: cell.job.id) == 12
    # An untrained network is drawn by one seed, and so are its readouts; a trained one's are drawn by each.
    assert runs(lambda cell: (cell.job.id, cell.seed)) == 8 + 4 * 2
    assert [cell.target.name for cell in cells] == ["H", "V"] * 16


def test_jobs_that_differ_in_their_test_images_follow_each_other() -> None:
    photos, other = TWO_SOURCES[0][0], folder("other", digest="12" * 32)
    jobs = [
        job
        for job, _ in plan(
            paddings=[padding(name) for name in ("zero", "circular")], sources=[(photos, photos), (photos, other)]
        ).jobs()
    ]
    assert [(job.padding.name, job.test.label) for job in jobs if job.padding] == [
        ("zero", "photos"),
        ("zero", "other"),
        ("circular", "photos"),
        ("circular", "other"),
    ]
    assert jobs[0].training_id == jobs[1].training_id != jobs[2].training_id


def test_photographs_that_serve_both_roles_anywhere_are_halved_everywhere() -> None:
    photos, other = folder("photos"), folder("other", digest="12" * 32)
    drawn = Source(Images(name="drawn", summary="", version="1", draw=never))

    def halved(*sources: tuple[Source, Source]) -> list[tuple[bool, bool]]:
        return [(job.train.halved, job.test.halved) for job, _ in plan(sources=list(sources)).jobs()]

    assert halved((photos, other)) == [(False, False)]
    assert halved((photos, photos)) == [(True, True)]
    assert halved((photos, photos), (photos, other), (drawn, photos)) == [(True, True), (True, False), (False, True)]
    # One source under two records, as two mentions of a folder make.
    assert halved((folder("photos"), other), (other, folder("photos"))) == [(True, True)] * 2
    assert halved((drawn, drawn)) == [(False, False)]


def test_where_photographs_are_few_readouts_are_cross_fitted() -> None:
    few, drawn = folder(photographs=3), Source(Images(name="drawn", summary="", version="1", draw=never))

    def shared(*sources: tuple[Source, Source]) -> list[tuple[bool, bool]]:
        jobs = [job for job, _ in plan(sources=list(sources), n_test=4).jobs()]
        assert not any(source.halved for job in jobs for source in (job.train, job.test))
        return [(job.train.cross_fitted, job.test.cross_fitted) for job in jobs]

    assert shared((few, few)) == [(True, False)]
    assert shared((few, drawn)) == [(False, False)]
    assert shared((few, few), (few, drawn), (drawn, few)) == [(True, False), (True, False), (False, False)]
    with pytest.raises(UsageError, match="--train-count 1 leaves one of two"):
        plan(sources=[(few, few)], n_train=1)


def test_pending_is_what_is_not_done() -> None:
    made = plan(targets=[target(name) for name in "HVG"], paddings=[padding(name) for name in ("zero", "edge")])
    done = {made.cells[0].id, *(cell.id for cell in made.cells[3:])}
    (task,) = made.tasks(done)
    assert task.job == made.cells[0].job
    assert task.cells == made.cells[1:3]
    assert passes([task]) == 1
    assert [cell for task in made.tasks() for cell in task.cells] == list(made.cells)


def test_a_metric_of_the_job_is_measured_once_a_job_and_only_of_networks_as_they_are() -> None:
    modes = Metric(name="modes", summary="", version="1", of_job=never)
    made = plan(metrics=[metric("spc"), modes], paddings=[padding(name) for name in ("zero", "edge")])
    assert (made.metrics, made.measures) == ((metric("spc"),), (modes,))
    zero, edge = made.cells
    every = {zero.id, edge.id}
    assert [(task.job, task.measures) for task in made.tasks(every)] == [(zero.job, (modes,)), (edge.job, (modes,))]
    (left,) = made.tasks(every, {(zero.job.id, "modes", "1"), (edge.job.id, "modes", "0")})
    assert (left.job, left.cells, left.measures) == (edge.job, (), (modes,))
    rotated, null = (load_registry().get(Control, name) for name in ("rotated", "null"))
    other = replace(zero, job=replace(zero.job, n_train=9), control=rotated, control_of=zero.id)
    for cell, count in ((other, 0), (replace(other, control=null), 1)):
        assert [len(task.measures) for task in replace(made, cells=(cell,)).tasks()] == [count]


# Every setting and component of a cell, and another in its place.
JOB_CHANGES: dict[str, dict[str, Any]] = {
    "backbone": {"backbone": backbone("other")},
    "backbone version": {"backbone": backbone(version="2")},
    "weights label": {"weights": Weights("imagenet:net@2", FILE_HASH)},
    "weights file": {"weights": Weights(TRAINED.label, "ee" * 32)},
    "random weights": {"weights": UNTRAINED},
    "another random network": {"weights": RANDOM[1]},
    "no weights": {"weights": NONE},
    "padding": {"padding": padding("edge")},
    "padding version": {"padding": padding("zero", "2")},
    "no padding": {"padding": None},
    "train": {"train": folder("other")},
    "train content": {"train": folder(digest="ff" * 32)},
    "train version": {"train": folder(version="2")},
    "test": {"test": folder("other")},
    "test content": {"test": folder(digest="ff" * 32)},
    "test version": {"test": folder(version="2")},
    "n_train": {"n_train": 9},
    "n_test": {"n_test": 5},
    "image size": {"image_size": 72},
    "precision": {"precision": "bf16"},
}
CELL_CHANGES: dict[str, dict[str, Any]] = {
    "target": {"target": target("V")},
    "target version": {"target": target("H", "2")},
    "readout": {"readout": readout("sgd")},
    "readout version": {"readout": readout(version="2")},
    "taps": {"taps": "1"},
    "seed": {"seed": 0},
    "another seed": {"seed": 1},
    "score_at": {"score_at": "image"},
}
[CELL] = plan().cells


def test_every_ingredient_changes_the_identity_each_to_another() -> None:
    jobs = [replace(CELL.job, **change) for change in JOB_CHANGES.values()]
    cells = [CELL, *(replace(CELL, job=job) for job in jobs)]
    cells += [replace(CELL, **change) for change in CELL_CHANGES.values()]
    assert len({cell.id for cell in cells}) == len(cells)
    assert len({job.id for job in [CELL.job, *jobs]}) == len(jobs) + 1


@pytest.mark.parametrize("change", CELL_CHANGES)
def test_what_is_read_from_a_pass_leaves_the_job_the_same(change: str) -> None:
    assert replace(CELL, **CELL_CHANGES[change]).job.id == CELL.job.id


def other(*arguments: object) -> Any:
    """A function that is not `never`."""


def test_nothing_else_changes_the_identity() -> None:
    checkpoint = Checkpoint(label="x", find=never)
    same = replace(
        CELL,
        job=replace(
            CELL.job,
            backbone=backbone(summary="told otherwise", source="elsewhere", build=other, checkpoints=(checkpoint,)),
            weights=Weights(TRAINED.label, TRAINED.digest, Path("moved.pt"), checkpoint),
            padding=replace(padding("zero"), summary="s", source="s", pad=other),
        ),
        target=replace(CELL.target, summary="s", source="s", draw=other),
        readout=replace(CELL.readout, summary="s", source="s", fit=other),
    )
    assert same.id == CELL.id


def test_neither_company_nor_order_changes_the_identity() -> None:
    alone = {cell.id for name in ("zero", "edge") for cell in plan(paddings=[padding(name)]).cells}
    together = {
        cell.id for cell in plan(paddings=[padding("edge"), padding("zero")], networks=[(NET, [TRAINED])]).cells
    }
    more = plan(metrics=[metric("a"), metric("b", "7")], seeds=[5], targets=[target("V"), target("H")])
    assert alone == together
    assert CELL.id in alone
    assert CELL.id in {cell.id for cell in more.cells}


def test_the_identity_is_the_hash_of_canonical_json() -> None:
    source = f'{{"halved":true,"label":"photos","sha256":"{PHOTO_HASH}","version":"1"}}'
    written = (
        '{"backbone":{"name":"net","version":"1"},'
        f'"image_size":64,"images":{source},'
        '"n_test":4,"n_train":8,'
        '"padding":{"name":"zero","version":"1"},'
        '"precision":"fp32","protocol":"4",'
        '"readout":{"name":"ridge","version":"1"},'
        '"score_at":"grid","seed":null,"taps":"all",'
        '"target":{"name":"H","version":"1"},'
        f'"test_images":{source},'
        f'"weights":{{"label":"imagenet:net@1","sha256":"{FILE_HASH}"}}}}'
    )
    assert CELL.id == hashlib.sha256(written.encode()).hexdigest()


def test_canonical_json_is_ascii_and_knows_no_order() -> None:
    assert identify({"b": "é", "a": [1, None]}) == identify({"a": [1, None], "b": "é"})
    assert identify({"é": 0.5}) == hashlib.sha256(rb'{"\u00e9":0.5}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        identify({"a": float("nan")})


def test_a_folders_label_stands_in_the_identity() -> None:
    source = folder()
    labelled = replace(source, images=replace(source.images, label="folder:x@12345678"))
    assert replace(CELL.job, train=labelled).identity()["images"]["label"] == "folder:x@12345678"
    assert replace(CELL.job, train=labelled, test=labelled).title == "net (imagenet:net@1), zero, folder:x@12345678"
    assert replace(CELL.job, train=labelled).title == "net (imagenet:net@1), zero, folder:x@12345678 → photos"


@pytest.mark.parametrize(("size", "side"), [(224, 28), (64, 8), (225, 28), (229, 29), (36, 5), (288, 36), (1, 0)])
def test_the_grid_is_an_eighth_of_the_image(size: int, side: int) -> None:
    assert grid_side(size) == side
    assert replace(CELL.job, image_size=size).grid == side


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", "all"), ("1", "1"), ("1,3", "1+3"), ("3,1", "1+3"), (" 2 , 2,10", "2+10"), ("01", "1")],
)
def test_taps_are_numbers_in_order_once(text: str, expected: str) -> None:
    assert parse_taps(text) == [expected]


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "0", "1,0", "-1", "+1", "1.5", "a", "All", "1+2", "٣", "²", "9" * 5000]
)
def test_what_are_no_taps(text: str) -> None:
    with pytest.raises(UsageError, match=r"--taps '.*' is none of all, each, all,each and numbers such as 1,3"):
        parse_taps(text)


@given(st.sets(st.integers(1, 9), min_size=1))
def test_taps_come_back_as_indices(numbers: set[int]) -> None:
    [taps] = parse_taps(",".join(map(str, numbers)))
    assert tap_numbers(taps, 9) == sorted(number - 1 for number in numbers)


def test_all_taps_are_all_there_are() -> None:
    assert tap_numbers("all", 4) == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="--taps names tap 5, but the network has 4: give numbers from 1 to 4"):
        tap_numbers("1+5", 4)


def test_a_tap_that_one_network_lacks_stops_the_plan() -> None:
    with pytest.raises(UsageError, match="--taps names tap 3, but backbone 'shallow' has 2"):
        plan(networks=[(NET, [TRAINED]), (backbone("shallow", taps=2), [TRAINED])], taps=["3"])


def test_each_tap_by_itself_is_a_cell_of_each_backbone() -> None:
    made = plan(
        networks=[(NET, [TRAINED]), (backbone("deep", taps=4), [TRAINED])], taps=["each"], targets=[target("H")]
    )
    assert [(cell.job.backbone.name, cell.taps) for cell in made.cells] == [
        *(("net", str(number)) for number in range(1, NET.taps + 1)),
        *(("deep", str(number)) for number in range(1, 5)),
    ]
    assert parse_taps("each") == ["each"]


def test_images_too_small_to_draw_on_are_refused_with_the_size_that_will_do() -> None:
    ridge = readout(grid=lambda side: side - 2)
    with pytest.raises(UsageError) as caught:
        plan(readouts=[ridge], image_size=32)
    assert str(caught.value) == "image size 32 is too small for readout 'ridge': give --image-size 44 or more"
    # 44 / 8 = 5.5, rounded up to 6, of which a 3×3 readout leaves 4.
    assert plan(readouts=[ridge], image_size=44).cells
    with pytest.raises(UsageError):
        plan(readouts=[ridge], image_size=43)


def test_a_readout_that_never_draws_enough_is_a_plain_error() -> None:
    with pytest.raises(UsageError, match="too small for readout 'blind'"):
        plan(readouts=[readout("blind", grid=lambda side: 1)])


def test_planning_imports_no_torch() -> None:
    code = "import posbench.bench.plan, posbench.bench.resolve, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plan_is_pure() -> None:
    # Every function of `tests.factories` raises when it is called, and so far none was but `grid`.
    first, second = make_plan(plan_inputs()), make_plan(plan_inputs())
    assert [cell.id for cell in first.cells] == [cell.id for cell in second.cells]
    assert isinstance(first.cells[0], Cell)
    assert isinstance(first.cells[0].job, Job)
