"""Which cells check a cell, and that what they change is what they say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from posbench.bench.controls import CONTROLS, NULL_TEST_IMAGES, ControlContext, chosen, with_controls
from posbench.bench.plan import Cell, Plan, Source
from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.core.errors import UsageError
from posbench.plugin.components import Images, Target
from posbench.plugin.resampling import resize
from tests.factories import CONTROL, NET, TRAINED, UNTRAINED, control, folder, never, padding, plan, readout

LEAVES = Source(Images(name="leaves", summary="", version="1", draw=never, torus=True))
PHOTOS = folder()
GIVEN = ControlContext(none=CONTROL, leaves=LEAVES, photos=PHOTOS, seeds=[0])
H = Target(name="H", summary="", version="1", draw=targets.horizontal)
GRIDDED = replace(readout(), grid=lambda side: side - 2)


def checked(*names: str, given: ControlContext = GIVEN, **changes: Any) -> tuple[Cell, list[Cell]]:
    """The first plain cell of a plan, and what checks it."""
    made = plan(**({"targets": [H], "readouts": [GRIDDED]} | changes))
    every = with_controls(made, chosen(names), given)
    assert [cell for cell in every.cells if not cell.control] == list(made.cells)
    return made.cells[0], [cell for cell in every.cells if cell.control]


def test_each_control_is_linked_to_its_cell_and_counted() -> None:
    cell, checks = checked("all")
    assert {check.control_of for check in checks} == {cell.id}
    assert len({check.id for check in checks} | {cell.id}) == len(checks) + 1
    assert Counter(check.control for check in checks) == {
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
    same = {check.control for check in checks if check.job == cell.job}
    assert same == {
        *("held-out-positions-columns", "held-out-positions-quadrant"),
        *("permuted", "smooth-random", "noise-features", "target-features"),
    }
    again = {check.control for check in checks if check.job != cell.job and check.job.training == cell.job.training}
    assert again == {
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
    assert with_controls(made, chosen(["all"]), GIVEN) == made


def test_random_weights_check_trained_ones_with_three_seeds_or_more() -> None:
    assert [check.job.weights.label for check in checked("random-weights")[1]] == ["random:0", "random:1", "random:2"]
    _, four = checked("random-weights", given=replace(GIVEN, seeds=[3, 4, 5, 6]))
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
    before, after = (resize(pattern(one.target), side).numpy() for one in (cell, check))
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
    assert [control.name for control in chosen(["none", "null", "none"])] == ["none", "null"]
    assert chosen(["all"]) == list(CONTROLS.values())
    with pytest.raises(UsageError, match="unknown control 'nul': did you mean null"):
        chosen(["nul"])


def test_plain_cells_are_the_same_whether_or_not_they_are_checked() -> None:
    made = plan(targets=[H], readouts=[GRIDDED])
    assert with_controls(made, [], GIVEN) == made
    assert isinstance(with_controls(made, chosen(["all"]), GIVEN), Plan)
