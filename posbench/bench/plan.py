"""Makes the jobs and cells of a run, and gives each its identity. Pure functions; imports no torch.

A job is one frozen network under one padding over one set of images, and costs one forward pass. A cell is one readout
of one target from that pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, product
from typing import Any

from posbench.bench.taps import ALL, EACH, tap_numbers
from posbench.core.errors import UsageError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Component, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Check, Control
from posbench.plugin.execution import TaskIds
from posbench.plugin.sandbox import naming_errors

#: Bumped when posbench itself changes what a score means; part of every identity.
PROTOCOL = "4"
#: Image pixels along one side of a cell of the readout's grid, as in the paper: 28 cells at 224 pixels.
CELL_PIXELS = 8
#: The smallest side of a readout's map, in cells: a rank correlation over fewer cells says little.
SMALLEST_MAP = 4

Identity = dict[str, Any]


def identify(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of an identity as canonical JSON: keys sorted, no blanks, ASCII."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _part(component: Component) -> Identity:
    return {"name": component.name, "version": component.version}


@dataclass(frozen=True)
class Source:
    """A source of images in one role, training or testing.

    Attributes:
        digest: SHA-256 of its photographs; empty for generated images, which their version identifies.
        photographs: how many different photographs it has.
        halved: half of its photographs are for testing, since the run trains and tests on it.
        cross_fitted: it has too few photographs to halve: a readout is fitted on each half and tested on the other.
        rotated: its images are rotated by 180 degrees.
    """

    images: Images
    digest: str = ""
    photographs: int = 0
    halved: bool = False
    cross_fitted: bool = False
    rotated: bool = False

    @property
    def label(self) -> str:
        """The value of the column `images` or `test_images`."""
        return (self.images.label or self.images.name) + (" turned" if self.rotated else "")

    def identity(self) -> Identity:
        marks = {"halved": self.halved, "crossed": self.cross_fitted, "turned": self.rotated}
        present = {mark: True for mark, present in marks.items() if present}
        return {"label": self.label, "version": self.images.version, "sha256": self.digest} | present


@dataclass(frozen=True)
class Job:
    """One network under one padding over one set of images.

    Attributes:
        padding: None for a network without weights or border.
        n_train, n_test: how many crops.
        image_size: the side of a crop, in pixels.
        precision: `fp32` or `bf16`.
        test_size: the side of a test crop, in pixels; None if it is that of a training crop.
    """

    backbone: Backbone
    weights: Weights
    padding: Padding | None
    train: Source
    test: Source
    n_train: int
    n_test: int
    image_size: int
    precision: str
    test_size: int | None = None

    @property
    def grid(self) -> int:
        """The side of the grid that taps are aligned to, in cells."""
        return grid_side(self.image_size)

    @property
    def test_grid(self) -> int:
        """The side of the grid of test crops."""
        return grid_side(self.test_image_size)

    @property
    def test_image_size(self) -> int:
        """The side of a test crop, in pixels."""
        return self.test_size or self.image_size

    def identity(self) -> Identity:
        return {
            "protocol": PROTOCOL,
            "backbone": _part(self.backbone),
            "weights": {"label": self.weights.label, "sha256": self.weights.digest},
            "padding": _part(self.padding) if self.padding else {"name": "none", "version": ""},
            "images": self.train.identity(),
            "test_images": self.test.identity(),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "image_size": self.image_size,
            "precision": self.precision,
        } | ({"test_size": self.test_size} if self.test_size else {})

    @cached_property
    def id(self) -> str:
        return identify(self.identity())

    @cached_property
    def training_id(self) -> str:
        """The identity of the training features: jobs that agree in it differ in their test images alone."""
        identity = self.identity()
        # The number of test crops decides which photographs of a halved source are left for training.
        testing = {"test_images", "test_size", *(() if self.train.halved else ("n_test",))}
        return identify({key: value for key, value in identity.items() if key not in testing})

    @property
    def sources(self) -> str:
        """The sources of its images, for messages."""
        return self.train.label if self.train.label == self.test.label else f"{self.train.label} → {self.test.label}"

    @property
    def title(self) -> str:
        """The job, for messages."""
        padding = self.padding.name if self.padding else "none"
        size = f" at {self.test_size} px" if self.test_size else ""
        return f"{self.backbone.name} ({self.weights.label}), {padding}, {self.sources}{size}"


@dataclass(frozen=True)
class Cell:
    """One readout of one target from a job.

    Attributes:
        taps: `all`, or the numbers of taps joined by `+`, counted from 1.
        seed: of a stochastic readout; None for a deterministic one.
        score_at: `grid`, or `image` for maps and targets resized to the image's size before they are scored.
        control: the control that adds the cell to check another one; None for a plain cell.
        check: how the cell differs from the one that it checks.
        control_of: the id of that other cell.
    """

    job: Job
    target: Target
    readout: Readout
    taps: str
    seed: int | None
    score_at: str = "grid"
    control: Control | None = None
    check: Check | None = None
    control_of: str = ""

    def identity(self) -> Identity:
        identity = self.job.identity() | {
            "target": _part(self.target),
            "readout": _part(self.readout),
            "taps": self.taps,
            "seed": self.seed,
            "score_at": self.score_at,
        }
        if self.check and self.control:
            identity |= {"control": self.check.name, "control_of": self.control_of}
            # Results of controls before they had versions, all of them "1" now, keep their ids.
            if self.control.version != "1":
                identity["control_version"] = self.control.version
        return identity

    @cached_property
    def id(self) -> str:
        return identify(self.identity())


def grid_side(image_size: int) -> int:
    """Return the side of the aligned grid for a crop of `image_size` pixels, halves rounded up."""
    return (image_size + CELL_PIXELS // 2) // CELL_PIXELS


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Components, weights and settings, all combinations of which make a plan."""

    networks: Sequence[tuple[Backbone, Sequence[Weights]]]
    paddings: Sequence[Padding]
    targets: Sequence[Target]
    readouts: Sequence[Readout]
    metrics: Sequence[Metric]
    sources: Sequence[tuple[Source, Source]]
    seeds: Sequence[int]
    taps: Sequence[str]
    score_at: str = "grid"
    n_train: int
    n_test: int
    image_size: int
    precision: str


@dataclass(frozen=True)
class Task:
    """The work on one job: cells to compute, and metrics of the job itself to measure."""

    job: Job
    cells: tuple[Cell, ...]
    measures: tuple[Metric, ...]

    @property
    def ids(self) -> TaskIds:
        """The ids by which a process that has the same plan finds the task."""
        metrics = tuple((metric.name, metric.version) for metric in self.measures)
        return TaskIds(self.job.id, tuple(cell.id for cell in self.cells), metrics, self.job.training_id)


#: A measurement of a job: the job's id, the metric's name and version.
Measured = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """The cells of one run, those of a job next to each other; metrics score cells, measures a job as a whole."""

    cells: tuple[Cell, ...]
    metrics: tuple[Metric, ...]
    measures: tuple[Metric, ...] = ()

    def jobs(self) -> Iterator[tuple[Job, list[Cell]]]:
        """Yield each job with its cells."""
        for job, cells in groupby(self.cells, key=lambda cell: cell.job):
            yield job, list(cells)

    def shard(self, number: int, count: int) -> Plan:
        """Return part `number`, from 1, of `count` parts of this plan; jobs that share features stay together."""
        places = {key: i for i, key in enumerate(dict.fromkeys(cell.job.training_id for cell in self.cells))}
        return replace(self, cells=tuple(c for c in self.cells if places[c.job.training_id] % count == number - 1))

    def tasks(self, done: Collection[str] = (), measured: Collection[Measured] = ()) -> list[Task]:
        """Return the remaining work, without cells of the ids in `done` and measurements in `measured`."""
        tasks = []
        for job, cells in self.jobs():
            measurable = any(cell.control is None or cell.control.measured for cell in cells)
            measures = [m for m in self.measures if measurable and (job.id, m.name, m.version) not in measured]
            # Without a metric that scores cells there is nothing to compute of them.
            missing = [cell for cell in cells if cell.id not in done] if self.metrics else []
            if missing or measures:
                tasks.append(Task(job, tuple(missing), tuple(measures)))
        return tasks


def passes(tasks: Iterable[Task]) -> int:
    """Return how many forward passes of networks the tasks cost."""
    return sum(not task.job.backbone.weightless for task in tasks)


def make_plan(inputs: PlanInputs) -> Plan:
    """Make the jobs and cells of all combinations of the inputs.

    Raises:
        UsageError: if the images are too small for a readout, or a tap does not exist.
    """
    for readout in inputs.readouts:
        _check_map_size(readout, inputs.image_size)
    for (backbone, _), taps in product(inputs.networks, inputs.taps):
        if not backbone.weightless and taps != EACH:
            tap_numbers(taps, backbone.taps, f"backbone {backbone.name!r}")
    # Two names may refer to the same thing, such as two paths of a folder.
    jobs = {job.id: job for job in _jobs(inputs)}
    if any(job.train.cross_fitted for job in jobs.values()) and inputs.n_train < 2:
        raise UsageError(
            "--train-count 1 leaves one of two cross-fitted readouts nothing to learn from: give 2 or more"
        )
    return Plan(
        ordered_by_cost(cell for job in jobs.values() for cell in _cells(job, inputs)),
        tuple(metric for metric in inputs.metrics if metric.of_job is None),
        tuple(metric for metric in inputs.metrics if metric.of_job is not None),
    )


def _check_map_size(readout: Readout, image_size: int) -> None:
    def large_enough(size: int) -> bool:
        return readout.grid(grid_side(size)) >= SMALLEST_MAP

    with naming_errors(readout):
        if large_enough(image_size):
            return
        smallest = next(filter(large_enough, range(image_size, 4096)), None)
    hint = f"give --image-size {smallest} or more" if smallest else "it draws no map of 4×4 at any size"
    raise UsageError(f"image size {image_size} is too small for readout {readout.name!r}: {hint}")


def assign_photographs(sources: Sequence[tuple[Source, Source]], n_test: int) -> Iterator[tuple[Source, Source]]:
    """Mark how the photographs of training and test sources that serve for both are divided.

    A source with at least one photograph for each of `n_test` crops is halved, in all pairs alike, so that a readout
    does not depend on the test images. With fewer, readouts are cross-fitted, so that each photograph is tested.
    """
    trained, tested = ({identify(source.identity()) for source in role} for role in zip(*sources, strict=True))

    def marked(source: Source, *, trains: bool) -> Source:
        both = identify(source.identity()) in trained & tested
        if not both or source.images.photographs is None:
            return source
        few = source.photographs < n_test
        return replace(source, halved=not few, cross_fitted=few and trains)

    for train, test in sources:
        yield marked(train, trains=True), marked(test, trains=False)


def _jobs(inputs: PlanInputs) -> Iterator[Job]:
    pairs = list(assign_photographs(inputs.sources, inputs.n_test))
    settings = (inputs.n_train, inputs.n_test, inputs.image_size, inputs.precision)
    for backbone, weights in inputs.networks:
        paddings: Sequence[Padding | None] = [None] if backbone.weightless else inputs.paddings
        for weight, padding, (train, test) in product(weights, paddings, pairs):
            yield Job(backbone, weight, padding, train, test, *settings)


def ordered_by_cost(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Sort cells so that those that share the costliest parts are next to each other, else as they first occur.

    These are the network, its padding, the training features and the job.
    """
    places: dict[tuple[object, ...], int] = {}

    def place(cell: Cell) -> list[int]:
        job = cell.job
        network = (job.backbone.name, job.weights.label, job.weights.digest)
        parts = (network, job.padding.name if job.padding else "", job.training_id, job.id)
        return [places.setdefault(parts[:depth], len(places)) for depth in range(1, len(parts) + 1)]

    return tuple(sorted(cells, key=place))


def _cells(job: Job, inputs: PlanInputs) -> Iterator[Cell]:
    """Yield the cells of a job; cells that differ in their target alone are fitted together, so they are neighbours."""
    each = [str(number) for number in range(1, job.backbone.taps + 1)]
    selected = [tap for taps in inputs.taps for tap in (each if taps == EACH else [taps])]
    # A weightless backbone has one tap, the image, whatever taps of networks are selected.
    for readout, taps in product(inputs.readouts, [ALL] if job.backbone.weightless else selected):
        # The seed of random weights is that of the readouts on them too.
        random = inputs.seeds if job.weights.seed is None else [job.weights.seed]
        seeds: Sequence[int | None] = random if readout.stochastic else [None]
        for seed, target in product(seeds, inputs.targets):
            yield Cell(job, target, readout, taps, seed, inputs.score_at)
