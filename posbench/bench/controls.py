"""Adds to a plan the cells by which controls check its cells. Pure functions; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from posbench.bench.plan import Cell, Job, Plan, Source, assign_photographs, ordered_by_cost
from posbench.bench.taps import ALL
from posbench.core.errors import unknown
from posbench.network.weights import NONE, Weights
from posbench.plugin.components import Backbone, Images, Target
from posbench.plugin.control import ALL_CONTROLS, Check, CheckedCell, Control, ControlContext
from posbench.plugin.registry import Registry
from posbench.plugin.sandbox import naming_errors


@dataclass(frozen=True)
class ControlInputs:
    """Components and settings that controls need beside the plan.

    Attributes:
        none: the backbone without a network.
        null_images: images in which nothing but a border indicates position.
        photographs: photographs for the controls of cells on null images; None if there are no such cells.
        seeds: of random networks.
    """

    none: Backbone
    null_images: Source
    photographs: Source | None
    seeds: Sequence[int]

    @cached_property
    def context(self) -> ControlContext:
        """The part of these inputs that controls get."""
        photographs = self.photographs.images if self.photographs else None
        return ControlContext(null_images=self.null_images.images, photographs=photographs, seeds=self.seeds)

    def source(self, images: Images, job: Job) -> Source:
        """Return the source of a job or of these inputs that offers some images.

        Raises:
            ValueError: if there is none.
        """
        for source in (self.null_images, self.photographs, job.train, job.test):
            if source is not None and source.images == images:
                return replace(source, halved=False, cross_fitted=False, rotated=False)
        raise ValueError(f"images {images.name!r} are neither those of the cell nor of the context")


def select_controls(names: Sequence[str], registry: Registry) -> list[Control]:
    """Return the controls of some names, or all if `all` is among the names.

    Raises:
        UsageError: if a name is unknown, or several plugins offer it.
    """
    if ALL_CONTROLS in names:
        return registry.every(Control)
    known = registry.names("control")
    for name in names:
        if name not in known:
            raise unknown("control", name, [*known, ALL_CONTROLS])
    return registry.select(Control, list(dict.fromkeys(names)))


def with_controls(plan: Plan, controls: Sequence[Control], inputs: ControlInputs) -> Plan:
    """Return a plan with the cells that check its cells. Cells without a network are not checked.

    Raises:
        ComponentError: if a control raises or returns an invalid check.
    """
    checks = [
        check for cell in plan.cells if not cell.job.backbone.weightless for check in checks_of(cell, controls, inputs)
    ]
    # By id, since the same check may come up several times.
    return replace(plan, cells=ordered_by_cost({cell.id: cell for cell in [*plan.cells, *checks]}.values()))


def checks_of(cell: Cell, controls: Iterable[Control], inputs: ControlInputs) -> list[Cell]:
    """Return the cells by which controls check a cell.

    Raises:
        ComponentError: if a control raises or returns an invalid check.
    """
    checked = _checked_cell(cell)
    cells: list[Cell] = []
    for control in controls:
        with naming_errors(control):
            cells += _cells(cell, control, control.checks(checked, inputs.context), inputs)
    return cells


def _checked_cell(cell: Cell) -> CheckedCell:
    job = cell.job
    return CheckedCell(
        backbone=job.backbone,
        weights=job.weights.label,
        random_seed=job.weights.seed,
        padding=job.padding,
        train=job.train.images,
        test=job.test.images,
        n_train=job.n_train,
        n_test=job.n_test,
        image_size=job.image_size,
        grid=job.grid,
        target=cell.target,
        readout=cell.readout,
        taps=cell.taps,
        seed=cell.seed,
        score_at=cell.score_at,
    )


def _cells(cell: Cell, control: Control, checks: Iterable[Check], inputs: ControlInputs) -> Iterator[Cell]:
    for check in checks:
        if not isinstance(check, Check):
            raise TypeError(f"checks returned {check!r}, which is no Check")
        if not control.owns(check.name):
            raise ValueError(f"check {check.name!r} must be called {control.name!r} or {control.name + '-…'!r}")
        job = _job(cell.job, check, inputs)
        seed = cell.seed
        if check.random_weights is not None:
            seed = check.random_weights if cell.readout.stochastic else None
        yield replace(
            cell,
            job=job,
            target=_target(cell.target, control, check),
            taps=ALL if job.backbone.weightless else cell.taps,
            seed=seed,
            score_at=check.score_at or cell.score_at,
            control=control,
            check=check,
            control_of=cell.id,
        )


def _job(job: Job, check: Check, inputs: ControlInputs) -> Job:
    """Return the job of a check of a cell of this job, which is the same one if nothing in it changes."""
    changes: dict[str, Any] = {}
    if check.train or check.test or check.rotate_test:
        changes["train"], changes["test"] = _sources(job, check, inputs)
    if check.n_test:
        changes["n_test"] = check.n_test
    if check.test_size:
        changes["test_size"] = check.test_size
    if check.random_weights is not None:
        changes["weights"] = Weights(f"random:{check.random_weights}", seed=check.random_weights)
    if check.no_network:
        changes |= {"backbone": inputs.none, "weights": NONE, "padding": None}
    return replace(job, **changes) if changes else job


def _sources(job: Job, check: Check, inputs: ControlInputs) -> tuple[Source, Source]:
    """Return the sources of training and test images of a check."""
    train = inputs.source(check.train, job) if check.train else job.train
    test = inputs.source(check.test, job) if check.test else job.test
    if (check.train or check.test) and train.images == test.images:
        # The same photographs in both roles have to be divided between them.
        pair = [(_undivided(train), _undivided(test))]
        ((train, test),) = assign_photographs(pair, check.n_test or job.n_test)
    return train, replace(test, rotated=True) if check.rotate_test else test


def _undivided(source: Source) -> Source:
    return replace(source, halved=False, cross_fitted=False)


def _target(target: Target, control: Control, check: Check) -> Target:
    if check.target is None:
        return target
    if not control.target_suffix:
        raise ValueError(f"check {check.name!r} has a target of its own, but the control has no target_suffix")
    return replace(target, name=target.name + control.target_suffix, draw=check.target)
