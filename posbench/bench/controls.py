"""Controls: for each cell of a plan, the cells that check it. Pure; imports no torch until a target is drawn.

What a control changes between features and scores stands in `posbench.bench.treatments`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posbench.bench.plan import ALL, Cell, Job, Plan, Source, ordered_by_cost
from posbench.core.errors import unknown
from posbench.network.weights import NONE, Weights
from posbench.plugin.components import Backbone, Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: A null test needs as many test images: with 40, the mean over images of a network that cannot know position reached
#: .12, with 192 .03. With this many, one SPC scattering by .38, the 95 % interval is .038 to either side of the mean,
#: so that a null is told from a correlation of .1 in 99 of 100 networks.
NULL_TEST_IMAGES = 384
#: Random networks to hold a trained one against, unless more are asked for.
SEEDS = (0, 1, 2)
#: Test sizes beside a training size of 224, and in proportion beside others, in pixels.
LARGER = (256, 288)
#: The standard deviation of the Gaussian that smooths noise into a field, as a share of the side.
SMOOTHNESS = 1 / 8


@dataclass(frozen=True)
class ControlContext:
    """What controls need beside the plan.

    Attributes:
        none: the backbone that is none.
        leaves: images without position, on a torus.
        photos: photographs for cells on leaves to be held against; None if nothing asks for them.
        seeds: of random networks.
    """

    none: Backbone
    leaves: Source
    photos: Source | None
    seeds: Sequence[int]


Checks = Callable[[Cell, ControlContext], Iterator[Cell]]


@dataclass(frozen=True)
class Control:
    """A way to check cells.

    Attributes:
        summary: what it asks, in one line.
        cells: those that check a cell; none if it would be its own check.
    """

    name: str
    summary: str
    cells: Checks


def _check(cell: Cell, control: str, job: Job | None = None, **changes: object) -> Cell:
    return replace(cell, job=job or cell.job, control=control, control_of=cell.id, **changes)  # type: ignore[arg-type]


def _on(job: Job, train: Source, test: Source, n_test: int | None = None) -> Job:
    return replace(job, train=train, test=test, n_test=n_test or job.n_test)


def _on_leaves(job: Job, given: ControlContext) -> bool:
    return job.train.images.name == job.test.images.name == given.leaves.images.name


def _null(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    job = cell.job
    if not (_on_leaves(job, given) and job.n_test >= NULL_TEST_IMAGES):
        yield _check(cell, "null", _on(job, given.leaves, given.leaves, max(NULL_TEST_IMAGES, job.n_test)))


def _none(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    yield _check(cell, "none", replace(cell.job, backbone=given.none, weights=NONE, padding=None), taps=ALL)


def _random_weights(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    if cell.job.weights.seed is not None:
        return
    for seed in given.seeds if len(given.seeds) >= len(SEEDS) else SEEDS:
        job = replace(cell.job, weights=Weights(f"random:{seed}", seed=seed))
        yield _check(cell, "random-weights", job, seed=seed if cell.readout.stochastic else None)


def _held_out_positions(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    # Held out are cells of the readout's grid, so that is where they are scored.
    yield _check(cell, "held-out-positions-columns", score_at="grid")
    yield _check(cell, "held-out-positions-quadrant", score_at="grid")


def _held_out_size(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    for size in LARGER:
        job = replace(cell.job, test_size=round(cell.job.image_size * size / 224))
        yield _check(cell, f"held-out-size-{size}-border", job)
        # Cut to a training image's pixels, which are whole cells of the grid.
        yield _check(cell, f"held-out-size-{size}-pixel", job, score_at="grid")


def _held_out_images(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    """Fitted on the cell's images and read on leaves, and the reverse; for leaves, photographs take the other part."""
    job = cell.job
    other = given.photos if _on_leaves(job, given) else given.leaves
    if other is not None:
        yield _check(cell, "held-out-images", _on(job, job.train, other))
        yield _check(cell, "held-out-images", _on(job, other, job.test))


def _rotated(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    if cell.job.test.images.photographs is not None:
        yield _check(cell, "rotated", replace(cell.job, test=replace(cell.job.test, turned=True)))


def _permuted(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    side = cell.readout.grid(cell.job.grid)

    def draw(size: int) -> NDArray[np.float64]:
        """The target's cells on the readout's grid in random order, each as a square of one value."""
        import numpy as np

        from posbench.bench.targets import pattern
        from posbench.plugin.resampling import resize

        cells = resize(pattern(cell.target), side).double().numpy()
        rng = np.random.default_rng(_seed(cell.target))
        shuffled: NDArray[np.float64] = rng.permutation(cells.flatten()).reshape(side, side)
        nearest = ((np.arange(size) + 0.5) * side / size).astype(int)
        enlarged: NDArray[np.float64] = shuffled[np.ix_(nearest, nearest)]
        return enlarged

    yield _check(cell, "permuted", target=replace(cell.target, name=f"{cell.target.name}-permuted", draw=draw))


def _smooth_random(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    def draw(size: int) -> NDArray[np.float64]:
        """A smooth random field with the target's own values."""
        import numpy as np
        from scipy.ndimage import gaussian_filter

        noise = np.random.default_rng(_seed(cell.target)).standard_normal((size, size))
        order = gaussian_filter(noise, SMOOTHNESS * size, mode="reflect").flatten().argsort()
        field = np.empty(size * size)
        field[order] = np.sort(np.asarray(cell.target.draw(size), np.float64), axis=None)
        return field.reshape(size, size)

    yield _check(cell, "smooth-random", target=replace(cell.target, name=f"{cell.target.name}-smooth", draw=draw))


def _seed(target: Target) -> int:
    return zlib.crc32(target.name.encode())


def _noise_features(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    yield _check(cell, "noise-features")


def _target_features(cell: Cell, given: ControlContext) -> Iterator[Cell]:
    yield _check(cell, "target-features")


CONTROLS = {
    control.name: control
    for control in (
        Control("null", "the same network and padding on leaves, where circular padding leaves no position", _null),
        Control("none", "no network: the readout on red, green and blue alone", _none),
        Control("random-weights", "the same network untrained, three seeds or more", _random_weights),
        Control("held-out-positions", "fitted on part of the grid, scored on the rest", _held_out_positions),
        Control(
            "held-out-size", "read on larger images, with the target at the border or at the pixel", _held_out_size
        ),
        Control("held-out-images", "fitted on photographs and read on leaves, and the reverse", _held_out_images),
        Control(
            "rotated", "read on photographs turned by 180°: content turns with them, the border does not", _rotated
        ),
        Control("permuted", "the target's cells in random order: what the readout has room for", _permuted),
        Control("smooth-random", "a smooth random field with the target's values", _smooth_random),
        Control("noise-features", "noise in place of features: must score 0", _noise_features),
        Control("target-features", "the targets among the features: must score 1", _target_features),
    )
}
EVERY = "all"


def chosen(names: Sequence[str]) -> list[Control]:
    """The controls that are named, `all` for every one.

    Raises:
        UsageError: if a name is none of them.
    """
    if EVERY in names:
        return list(CONTROLS.values())
    for name in names:
        if name not in CONTROLS:
            raise unknown("control", name, [*CONTROLS, EVERY])
    return [CONTROLS[name] for name in dict.fromkeys(names)]


def asked_as(check: str) -> str:
    """The control that a check of this name is one of, such as `held-out-size-256-border`; empty if none is known."""
    return next((name for name in CONTROLS if check == name or check.startswith(f"{name}-")), "")


def with_controls(plan: Plan, controls: Sequence[Control], given: ControlContext) -> Plan:
    """The plan and the cells that check its cells; the control `none` is itself not checked."""
    checks = [
        check
        for cell in plan.cells
        if not cell.job.backbone.weightless
        for control in controls
        for check in control.cells(cell, given)
    ]
    # By id, since two ways may lead to one check.
    return replace(plan, cells=ordered_by_cost({cell.id: cell for cell in [*plan.cells, *checks]}.values()))
