"""Turns a selection into jobs and cells, and gives each its identity. Pure; imports no torch.

A job is one frozen network under one padding over one set of images, and costs one pass of it. Its cells are what is
read from that pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

from posbench.core.errors import UsageError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.plugin.execution import TaskIds
from posbench.plugin.sandbox import naming_errors

#: Bumped when posbench itself changes what a score means; part of every identity.
PROTOCOL = "4"
#: Image pixels along one side of a cell of the readout's grid, as in the paper: 28 cells at 224 pixels.
CELL_PIXELS = 8
#: A readout's map must have this side at least: a rank correlation over fewer cells says little.
SMALLEST_MAP = 4

#: In place of numbers: all of a backbone's taps together, and each by itself.
ALL, EACH = "all", "each"

Identity = dict[str, Any]


def identify(identity: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of an identity as canonical JSON: keys sorted, no blanks, ASCII."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        digest: SHA-256 of what it holds; generated images have none beyond their version.
        photographs: how many different ones it has.
        halved: half of its photographs are for testing, since the same run trains and tests on it.
        crossed: they are too few for that: each half is tested by a readout that is fitted on the other.
        turned: its images stand on their heads, turned by 180 degrees.
    """

    images: Images
    digest: str = ""
    photographs: int = 0
    halved: bool = False
    crossed: bool = False
    turned: bool = False

    @property
    def label(self) -> str:
        return (self.images.label or self.images.name) + (" turned" if self.turned else "")

    def identity(self) -> Identity:
        marks = {mark: True for mark in ("halved", "crossed", "turned") if getattr(self, mark)}
        return {"label": self.label, "version": self.images.version, "sha256": self.digest} | marks


@dataclass(frozen=True)
class Job:
    """One network under one padding over one set of images.

    Attributes:
        padding: None for a network without weights or border.
        n_train, n_test: crops.
        image_size: the side of a crop, in pixels.
        precision: `fp32` or `bf16`, resolved.
        test_size: the side of a test crop; None where it is that of a training crop.
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
        """The side of the grid that the taps are aligned to, in cells."""
        return grid_side(self.image_size)

    @property
    def test_grid(self) -> int:
        """The same for test crops."""
        return grid_side(self.test_size or self.image_size)

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

    @property
    def id(self) -> str:
        return identify(self.identity())

    @property
    def training(self) -> str:
        """What its readouts are fitted on: jobs that agree in it differ in their test images alone."""
        identity = self.identity()
        # How many are tested decides which photographs of a halved source are left for training.
        apart = {"test_images", "test_size", *(() if self.train.halved else ("n_test",))}
        return identify({key: value for key, value in identity.items() if key not in apart})

    @property
    def sources(self) -> str:
        """Where its images come from, in a few words."""
        return self.train.label if self.train.label == self.test.label else f"{self.train.label} → {self.test.label}"

    @property
    def title(self) -> str:
        """The job in a few words, for messages."""
        padding = self.padding.name if self.padding else "none"
        size = f" at {self.test_size} px" if self.test_size else ""
        return f"{self.backbone.name} ({self.weights.label}), {padding}, {self.sources}{size}"


@dataclass(frozen=True)
class Cell:
    """One readout of one target from a job.

    Attributes:
        taps: `all`, or the numbers of the taps joined by `+`, counted from 1.
        seed: of a stochastic readout; None for one that needs none.
        score_at: `grid`, or `image` for maps and targets resized to the image's size before they are scored.
        control: what it is a check of another cell by (see `posbench.bench.controls`), or nothing.
        control_of: the id of that other cell.
    """

    job: Job
    target: Target
    readout: Readout
    taps: str
    seed: int | None
    score_at: str = "grid"
    control: str = ""
    control_of: str = ""

    def identity(self) -> Identity:
        checks = {"control": self.control, "control_of": self.control_of} if self.control else {}
        return (
            self.job.identity()
            | {
                "target": _part(self.target),
                "readout": _part(self.readout),
                "taps": self.taps,
                "seed": self.seed,
                "score_at": self.score_at,
            }
            | checks
        )

    @property
    def id(self) -> str:
        return identify(self.identity())


def _part(component: Backbone | Padding | Target | Readout) -> Identity:
    return {"name": component.name, "version": component.version}


def grid_side(image_size: int) -> int:
    """The side of the aligned grid for a crop of `image_size` pixels, halves rounded up."""
    return (image_size + CELL_PIXELS // 2) // CELL_PIXELS


def tap_numbers(taps: str, count: int, where: str = "the network") -> list[int]:
    """The indices, from 0, of the taps that a cell's `taps` names, of `count` there are.

    Raises:
        UsageError: if a number is not among them.
    """
    if taps == ALL:
        return list(range(count))
    numbers = [int(number) for number in taps.split("+")]
    if missing := [number for number in numbers if not 1 <= number <= count]:
        raise UsageError(f"--taps names tap {missing[0]}, but {where} has {count}: give numbers from 1 to {count}")
    return [number - 1 for number in numbers]


def parse_taps(text: str) -> list[str]:
    """The `taps` that `--taps` asks for: `all`, `each`, both, or numbers for one readout on a subset.

    Raises:
        UsageError: if the text is neither.
    """
    numbers = [number.strip() for number in text.split(",")]
    if set(numbers) <= {ALL, EACH}:
        return list(dict.fromkeys(numbers))
    # Python refuses to read numbers of thousands of digits.
    if not all(number.isascii() and number.isdigit() and len(number) < 9 and int(number) > 0 for number in numbers):
        raise UsageError(f"--taps {text!r} is none of all, each, all,each and numbers such as 1,3")
    return ["+".join(str(number) for number in sorted({int(number) for number in numbers}))]


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """What a plan crosses: components looked up, weights resolved, images identified."""

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
    """What is to be done of one job: cells to compute, and metrics of the job itself to measure."""

    job: Job
    cells: tuple[Cell, ...]
    measures: tuple[Metric, ...]

    @property
    def ids(self) -> TaskIds:
        """The ids by which a process that has the same plan finds the task."""
        metrics = tuple((metric.name, metric.version) for metric in self.measures)
        return TaskIds(self.job.id, tuple(cell.id for cell in self.cells), metrics, self.job.training)


#: What is measured of a job: its id, the metric's name and version.
Measured = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """The cells of one invocation, those of a job one after the other.

    Attributes:
        metrics: to score cells by.
        measures: metrics of a job as a whole.
    """

    cells: tuple[Cell, ...]
    metrics: tuple[Metric, ...]
    measures: tuple[Metric, ...] = ()

    def jobs(self, cells: Iterable[Cell] | None = None) -> Iterator[tuple[Job, list[Cell]]]:
        """Each job with its cells, all of them or those given."""
        for job, members in groupby(self.cells if cells is None else cells, key=lambda cell: cell.job):
            yield job, list(members)

    def shard(self, number: int, count: int) -> Plan:
        """One of several parts that together are this plan, numbered from 1; jobs that share features stay together."""
        groups = {key: i for i, key in enumerate(dict.fromkeys(cell.job.training for cell in self.cells))}
        return replace(self, cells=tuple(c for c in self.cells if groups[c.job.training] % count == number - 1))

    def tasks(self, done: Collection[str] = (), measured: Collection[Measured] = ()) -> list[Task]:
        """What is left to do.

        Args:
            done: the ids of cells that need no computing.
            measured: the same of metrics of jobs.
        """
        tasks = []
        for job, cells in self.jobs():
            # What a control changes is not the network's; but the null is a network on other images.
            as_it_is = any(cell.control in ("", "null") for cell in cells)
            wanted = [m for m in self.measures if as_it_is and (job.id, m.name, m.version) not in measured]
            # Without a metric to score them by, there is nothing to know of cells.
            missing = [cell for cell in cells if cell.id not in done] if self.metrics else []
            if missing or wanted:
                tasks.append(Task(job, tuple(missing), tuple(wanted)))
        return tasks


def passes(tasks: Iterable[Task]) -> int:
    """How many times a network is run over its images."""
    return sum(not task.job.backbone.weightless for task in tasks)


def make_plan(chosen: PlanInputs) -> Plan:
    """Cross the ingredients.

    Raises:
        UsageError: if the images are too small for a readout, or a tap does not exist.
    """
    side = grid_side(chosen.image_size)
    for readout in chosen.readouts:
        with naming_errors(readout):
            sizes = range(chosen.image_size, 4096)
            fits = readout.grid(side) >= SMALLEST_MAP
            enough = next((size for size in sizes if readout.grid(grid_side(size)) >= SMALLEST_MAP), None)
        if not fits:
            raise UsageError(
                f"image size {chosen.image_size} is too small for readout {readout.name!r}: "
                + (f"give --image-size {enough} or more" if enough else "it draws no map of 4×4 at any size")
            )
    for (backbone, _), taps in product(chosen.networks, chosen.taps):
        if not backbone.weightless and taps != EACH:
            tap_numbers(taps, backbone.taps, f"backbone {backbone.name!r}")
    # Two names may stand for one thing, such as two paths of a folder.
    jobs = {job.id: job for job in _jobs(chosen)}
    if any(job.train.crossed for job in jobs.values()) and chosen.n_train < 2:
        raise UsageError(
            "--train-count 1 leaves one of two cross-fitted readouts nothing to learn from: give 2 or more"
        )
    return Plan(
        ordered_by_cost(cell for job in jobs.values() for cell in _cells(job, chosen)),
        tuple(metric for metric in chosen.metrics if metric.of_job is None),
        tuple(metric for metric in chosen.metrics if metric.of_job is not None),
    )


def assign_photographs(sources: Sequence[tuple[Source, Source]], n_test: int) -> Iterator[tuple[Source, Source]]:
    """The pairs of training and test source, with how photographs are shared out that serve both roles anywhere.

    Where there is one for each test crop they are halved, everywhere alike, so that a readout is the same whatever it
    is tested on. Where there are fewer, readouts are cross-fitted, so that each photograph is tested.
    """
    trained, tested = ({identify(source.identity()) for source in role} for role in zip(*sources, strict=True))

    def marked(source: Source, *, trains: bool) -> Source:
        both = identify(source.identity()) in trained & tested
        if not both or source.images.photographs is None:
            return source
        few = source.photographs < n_test
        return replace(source, halved=not few, crossed=few and trains)

    for train, test in sources:
        yield marked(train, trains=True), marked(test, trains=False)


def _jobs(chosen: PlanInputs) -> Iterator[Job]:
    pairs = list(assign_photographs(chosen.sources, chosen.n_test))
    for backbone, weights in chosen.networks:
        paddings: Sequence[Padding | None] = [None] if backbone.weightless else chosen.paddings
        for weight, padding, (train, test) in product(weights, paddings, pairs):
            yield Job(
                backbone,
                weight,
                padding,
                train,
                test,
                chosen.n_train,
                chosen.n_test,
                chosen.image_size,
                chosen.precision,
            )


def ordered_by_cost(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells by what they share, the costliest first: a network, its padding, what a readout is fitted on, a job.

    Within each, they stay in the order in which they come.
    """
    nested: dict[tuple[str, str, str], dict[str, dict[str, dict[str, list[Cell]]]]] = {}
    for cell in cells:
        job = cell.job
        network = (job.backbone.name, job.weights.label, job.weights.digest)
        padding = job.padding.name if job.padding else ""
        by_job = nested.setdefault(network, {}).setdefault(padding, {}).setdefault(job.training, {})
        by_job.setdefault(job.id, []).append(cell)
    return tuple(
        cell
        for by_padding in nested.values()
        for by_training in by_padding.values()
        for by_job in by_training.values()
        for members in by_job.values()
        for cell in members
    )


def _cells(job: Job, chosen: PlanInputs) -> Iterator[Cell]:
    """Cells that differ in their target alone next to each other, since they are fitted together."""
    # The control's one tap is the image, whichever taps of networks it is held against.
    every = [str(number) for number in range(1, job.backbone.taps + 1)]
    asked = [tap for taps in chosen.taps for tap in (every if taps == EACH else [taps])]
    for readout, taps in product(chosen.readouts, [ALL] if job.backbone.weightless else asked):
        # The seed that draws a network also draws the readouts on it.
        drawn = chosen.seeds if job.weights.seed is None else [job.weights.seed]
        seeds: Sequence[int | None] = drawn if readout.stochastic else [None]
        for seed, target in product(seeds, chosen.targets):
            yield Cell(job, target, readout, taps, seed, chosen.score_at)
