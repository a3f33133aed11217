"""The cells by which controls check a cell, and what they change."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from posbench.bench.controls import ControlInputs, select_controls, with_controls
from posbench.bench.plan import Cell, Plan, Source
from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.builtin.controls import NULL_TEST_IMAGES
from posbench.core.errors import ComponentError, UsageError
from posbench.plugin.components import Images, Target
from posbench.plugin.control import Check, Control
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize
from tests.factories import CONTROL, NET, TRAINED, UNTRAINED, control, folder, never, padding, plan, readout

LEAVES = Source(Images(name="leaves", summary="", version="1", draw=never, torus=True))
PHOTOS = folder()
INPUTS = ControlInputs(none=CONTROL, null_images=LEAVES, photographs=PHOTOS, seeds=[0])
REGISTRY = load_registry()
H = Target(name="H", summary="", version="1", draw=targets.horizontal)
GRIDDED = replace(readout(), grid=lambda side: side - 2)


def checked(*selected: str, inputs: ControlInputs = INPUTS, **changes: Any) -> tuple[Cell, list[Cell]]:
    """Return the first plain cell of a plan, and the cells that check it."""
    made = plan(**({"targets": [H], "readouts": [GRIDDED]} | changes))
    every = with_controls(made, select_controls(selected, REGISTRY), inputs)
    assert [cell for cell in every.cells if not cell.control] == list(made.cells)
    return made.cells[0], [cell for cell in every.cells if cell.control]


def names(checks: Iterable[Cell]) -> list[str]:
    """Return the names of checks."""
    return [cell.check.name for cell in checks if cell.check]


def test_each_control_is_linked_to_its_cell_and_counted() -> None:
    cell, checks = checked("all")
    assert {check.control_of for check in checks} == {cell.id}
    assert len({check.id for check in checks} | {cell.id}) == len(checks) + 1
    assert Counter(names(checks)) == {
        "null": 1,
        "none": 1,
        "random-weights": 3,
        "held-out-positions-columns": 1,
        "held-out-positions-quadrant": 1,
        "held-out-size-256-border": 1,
        "held-out-size-256-pixel": 1,
        "held-out-size-288-border": 1,
        "held-out-size-288-pixel": 1,
        "held-out-images": 2,
        "rotated": 1,
        "permuted": 1,
        "smooth-random": 1,
        "noise-features": 1,
        "target-features": 1,
    }


def test_what_reuses_the_pass_is_of_the_same_job() -> None:
    cell, checks = checked("all")
    same = {*names(check for check in checks if check.job == cell.job)}
    assert same == {
        *("held-out-positions-columns", "held-out-positions-quadrant"),
        *("permuted", "smooth-random", "noise-features", "target-features"),
    }
    others = (check for check in checks if check.job != cell.job)
    again = names(check for check in others if check.job.training_id == cell.job.training_id)
    assert {*again} == {
        *(f"held-out-size-{size}-{at}" for size in (256, 288) for at in ("border", "pixel")),
        "rotated",
    } | {"held-out-images"}


def test_the_null_is_on_leaves_with_many_test_images() -> None:
    _, (check,) = checked("null")
    assert (check.job.train, check.job.test, check.job.n_test) == (LEAVES, LEAVES, NULL_TEST_IMAGES)
    _, (larger,) = checked("null", n_test=1000)
    assert larger.job.n_test == 1000
    assert checked("null", sources=[(LEAVES, LEAVES)], n_test=NULL_TEST_IMAGES)[1] == []


def test_images_that_are_not_leaves_have_a_null_whether_or_not_they_wrap() -> None:
    noise = Source(Images(name="noise", summary="", version="1", draw=never, torus=True))
    _, (check,) = checked("null", sources=[(noise, noise)], n_test=NULL_TEST_IMAGES)
    assert (check.job.train, check.job.n_test) == (LEAVES, NULL_TEST_IMAGES)
    assert not checked("null", sources=[(LEAVES, LEAVES)], n_test=NULL_TEST_IMAGES)[1]


def test_no_network_has_neither_weights_nor_padding() -> None:
    _, checks = checked("none", paddings=[padding("zero"), padding("edge")])
    assert {check.job.id for check in checks} == {plan(networks=[control()], targets=[H]).cells[0].job.id}
    assert len({check.id for check in checks}) == 2
    made = plan(networks=[control()])
    assert with_controls(made, select_controls(["all"], REGISTRY), INPUTS) == made


def test_random_weights_check_trained_ones_with_three_seeds_or_more() -> None:
    assert [check.job.weights.label for check in checked("random-weights")[1]] == ["random:0", "random:1", "random:2"]
    _, four = checked("random-weights", inputs=replace(INPUTS, seeds=[3, 4, 5, 6]))
    assert [check.job.weights.seed for check in four] == [3, 4, 5, 6]
    assert checked("random-weights", networks=[(NET, [UNTRAINED])])[1] == []
    _, stochastic = checked("random-weights", readouts=[readout("sgd", stochastic=True)], networks=[(NET, [TRAINED])])
    assert [check.seed for check in stochastic] == [0, 1, 2]


def test_images_are_exchanged_both_ways() -> None:
    cell, checks = checked("held-out-images")
    assert [(check.job.train.label, check.job.test.label) for check in checks] == [
        ("photos", "leaves"),
        ("leaves", "photos"),
    ]
    assert checks[1].job.test == cell.job.test  # the same photographs are held out
    on_leaves = checked("held-out-images", sources=[(LEAVES, LEAVES)])[1]
    assert [(check.job.train.label, check.job.test.label) for check in on_leaves] == [
        ("leaves", "photos"),
        ("photos", "leaves"),
    ]


def test_photographs_are_turned_and_drawn_images_are_not() -> None:
    _, (check,) = checked("rotated")
    assert check.job.test.label == "photos turned"
    assert checked("rotated", sources=[(LEAVES, LEAVES)])[1] == []


def test_larger_sizes_keep_their_proportion() -> None:
    _, checks = checked("held-out-size", image_size=112)
    assert [check.job.test_size for check in checks] == [128, 128, 144, 144]


def test_permuted_cells_are_the_targets_own_in_another_order() -> None:
    cell, (check,) = checked("permuted")
    side = cell.readout.grid(cell.job.grid)
    before, after = (resize(pattern(target), side).numpy() for target in (cell.target, check.target))
    assert np.sort(after, axis=None) == pytest.approx(np.sort(before, axis=None))
    assert abs(np.corrcoef(before.flatten(), after.flatten())[0, 1]) < 0.5
    assert check.target.name == "H-permuted"


def test_a_smooth_random_field_has_the_targets_values() -> None:
    cell, (check,) = checked("smooth-random")
    field, target = check.target.draw(64), cell.target.draw(64)
    assert np.sort(field, axis=None) == pytest.approx(np.sort(target, axis=None))
    ranks = rankdata(field).reshape(64, 64)
    assert np.corrcoef(ranks[:, 1:].flatten(), ranks[:, :-1].flatten())[0, 1] > 0.95  # smooth
    assert np.array_equal(field, checked("smooth-random")[1][0].target.draw(64))  # seeded


def test_names_are_looked_up() -> None:
    assert [control.name for control in select_controls(["none", "null", "none"], REGISTRY)] == ["none", "null"]
    assert select_controls(["all"], REGISTRY) == REGISTRY.every(Control)
    with pytest.raises(UsageError, match="unknown control 'nul': did you mean null"):
        select_controls(["nul"], REGISTRY)


def test_plain_cells_are_the_same_whether_or_not_they_are_checked() -> None:
    made = plan(targets=[H], readouts=[GRIDDED])
    assert with_controls(made, [], INPUTS) == made
    assert isinstance(with_controls(made, select_controls(["all"], REGISTRY), INPUTS), Plan)


def made(*checks: Check, **fields: Any) -> Control:
    """A control that returns these checks of each cell."""
    defaults: dict[str, Any] = {"name": "mine", "summary": "", "version": "1", "checks": lambda cell, context: checks}
    return Control(**(defaults | fields))


def test_a_plugins_control_changes_what_its_check_says() -> None:
    plain = plan(targets=[H], readouts=[GRIDDED], sources=[(PHOTOS, PHOTOS)])
    (cell,) = plain.cells
    check = Check(name="mine-small", n_test=2, test_size=72, train=LEAVES.images, score_at="image", rotate_test=True)
    control = made(check, version="3")
    _, added = with_controls(plain, [control], INPUTS).cells
    assert (added.job.train, added.job.test) == (LEAVES, replace(cell.job.test, rotated=True))
    assert (added.job.n_test, added.job.test_size, added.score_at) == (2, 72, "image")
    identity = added.identity()
    assert (identity["control"], identity["control_of"], identity["control_version"]) == ("mine-small", cell.id, "3")
    assert "control_version" not in replace(added, control=made(check)).identity()


def test_the_same_photographs_in_both_roles_are_divided() -> None:
    other = Source(Images(name="other", summary="", version="1", photographs=never), "ab" * 32, 9)
    control = made(Check(name="mine", train=PHOTOS.images))
    _, check = with_controls(plan(sources=[(other, PHOTOS)]), [control], INPUTS).cells
    assert check.job.train.halved
    assert check.job.test.halved


@pytest.mark.parametrize(
    ("control", "problem"),
    [
        (made(Check(name="other")), "check 'other' must be called 'mine' or 'mine-…'"),
        (made(3), "checks returned 3, which is no Check"),  # type: ignore[arg-type]
        (made(Check(name="mine", target=never)), "check 'mine' has a target of its own, but the control has no"),
        (
            made(Check(name="mine", test=Images(name="elsewhere", summary="", version="1", draw=never))),
            "images 'elsewhere' are neither those of the cell nor of the context",
        ),
        (made(checks=never), "AssertionError: called with"),
    ],
)
def test_a_control_that_breaks_its_contract_is_named(control: Control, problem: str) -> None:
    with pytest.raises(ComponentError, match=f"^control 'mine': .*{problem}"):
        with_controls(plan(), [control], INPUTS)


#: The first digits of the ids of a cell's checks, as every release since protocol 4 has computed them.
IDS = {
    "held-out-positions-columns": "f89c7ed238c3",
    "held-out-positions-quadrant": "6291b355f9ae",
    "permuted": "40281c54eb1c",
    "smooth-random": "8ac0f3d06977",
    "noise-features": "ce71b8a2ef87",
    "target-features": "aaf7e92ed538",
    "held-out-size-256-border": "7fa2702c4702",
    "held-out-size-256-pixel": "edac6910091e",
    "held-out-size-288-border": "3d520413fbdc",
    "held-out-size-288-pixel": "6de2b5daa86b",
    "held-out-images 0": "bd4b40458429",
    "rotated": "fe5b42a588ff",
    "null": "e82ca8238450",
    "held-out-images 1": "f1075f48ba80",
    "none": "6f17f72e8b47",
    "random-weights 0": "c19895c0a1f0",
    "random-weights 1": "cdd9500e0a10",
    "random-weights 2": "4bf754954f72",
}


def test_ids_of_checks_are_those_of_earlier_releases() -> None:
    _, checks = checked("all")
    assert {name: cell.id[:12] for name, cell in zip(numbered(names(checks)), checks, strict=True)} == IDS


def numbered(texts: list[str]) -> list[str]:
    """Return texts, each that occurs repeatedly with its number."""
    counts = Counter(texts)
    return [text if counts[text] == 1 else f"{text} {texts[:i].count(text)}" for i, text in enumerate(texts)]


def test_controls_are_listed_and_planned_without_torch() -> None:
    code = (
        "import sys; from posbench.plugin.control import Control, ControlCatalogue; "
        "from posbench.plugin.registry import load_registry; "
        "print(len(ControlCatalogue(load_registry().every(Control)))); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "11\n"), done.stderr
