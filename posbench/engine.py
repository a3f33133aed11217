"""Runs a plan, job by job: one pass of the network, then all readouts, all targets, all metrics."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from posbench import __version__
from posbench.components import Backbone, Fitted, Metric, Padding
from posbench.errors import ComponentError, Inapplicable, UsageError
from posbench.examples import examples
from posbench.features import Features, SpoiltError, extract, unspoilt
from posbench.folding import fold_norms
from posbench.guests import described, settled, tried, visit
from posbench.maps import pattern
from posbench.networks import build, smallest_size
from posbench.observation import Observation, Reading, Split
from posbench.passes import Pass
from posbench.photographs import Photograph, sift
from posbench.plan import Cell, Job, Task, tap_numbers
from posbench.reach import reach
from posbench.scoring import flatten_degenerate, summarised, values
from posbench.statistics import interval
from posbench.store import Outcome, StoredReading, StoredScore
from posbench.training import Training
from posbench.treatments import PLAIN, TREATMENTS, judged
from posbench.weights import Weights
from posbench.windows import FOLDS, TEST, TRAIN, Windows, deal, folds, windows

# NumPy asks Linux for large pages by itself, torch only if it is told to before its first tensor: without them, a
# sixth of extraction went into the system's handing out of fresh memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

#: How many cells of maps are scored at once.
MAP_CELLS = 2**22
#: Under which a job's images are seen within more of their photographs.
SURROUND = Padding(name="surround", summary="", version="1", border="surround")


class Observer(Protocol):
    """Who is told how a run goes on."""

    def started(self, job: Job) -> None: ...

    def saw(self, job: Job, images: int) -> None:
        """Some more of its images have passed through the network."""
        ...

    def finished(self, job: Job, result: JobResult) -> None: ...


@dataclass
class JobResult:
    """What became of one job.

    Attributes:
        outcomes: one a cell, in the order of the cells.
        readings: of the job as a whole.
        seconds: by stage: images, network, extraction, readout, scoring.
        provenance: what else to store with it.
    """

    outcomes: list[Outcome]
    readings: list[StoredReading] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst among the cells and readings: failed, skipped or ok."""
        found = {one.status for one in self.outcomes} | {one.status for one in self.readings}
        return min(found, key=["failed", "skipped", "ok"].index)

    @property
    def failures(self) -> list[str]:
        """Why something failed, each reason once."""
        reasons = [(one.status, one.reason) for one in self.outcomes]
        reasons += [(one.status, one.reason) for one in self.readings]
        return [reason for status, reason in dict.fromkeys(reasons) if status == "failed"]


#: Names a set of windows, by the photographs that they are cut from and how; or a network's features of them.
Key = tuple[object, ...]


@dataclass
class Seen:
    """What the cells of one job are read from.

    Attributes:
        train, test: features.
        windows: of training and of testing.
        folds: of each training and each test image, the cross-fitted readout that it belongs to; None for one readout.
        readouts: those already fitted on these training images, one a fold, by what they were fitted for.
    """

    train: Features
    test: Features
    windows: tuple[Windows, Windows]
    folds: tuple[NDArray[np.intp], NDArray[np.intp]] | None
    readouts: dict[Key, list[Fitted]]

    def tasks(self, training: Training) -> Iterator[Training]:
        """What each readout is fitted on: all images, or all but its fold's."""
        if self.folds is None:
            yield training
            return
        for fold in range(FOLDS):
            yield training.of_images(np.flatnonzero(self.folds[0] != fold).tolist())

    def splits(self) -> list[Split]:
        """Training and test features of different photographs."""
        if self.folds is None:
            return [Split(self.train, self.test, self.windows[1].photographs)]
        names = self.windows[1].photographs
        return [
            Split(
                self.train.of_images(np.flatnonzero(self.folds[0] != fold).tolist()),
                self.test.of_images(numbers),
                [names[i] for i in numbers],
            )
            for fold, numbers in enumerate(self.tested)
            if numbers
        ]

    @property
    def mutual(self) -> bool:
        """Whether what is tested by one readout has trained another."""
        train, test = (set(one.photographs) for one in self.windows)
        return self.folds is not None and bool(train & test)

    @property
    def tested(self) -> list[list[int]]:
        """The numbers of the test images that each readout draws for."""
        if self.folds is None:
            return [list(range(len(self.test)))]
        return [np.flatnonzero(self.folds[1] == fold).tolist() for fold in range(FOLDS)]


class Engine:
    """Computes jobs on one device, keeping between jobs what later ones will share."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._network: tuple[tuple[str, str, str], nn.Module] | None = None
        self._dealt: dict[Key, tuple[list[Photograph], list[Photograph]]] = {}
        self._windows: dict[Key, Windows] = {}
        self._features: dict[Key, Features] = {}
        self._readouts: dict[Key, dict[Key, list[Fitted]]] = {}
        self._seconds: dict[str, float] = {}
        self._last_use: dict[Key, int] = {}
        self._places: dict[str, int] = {}
        self._spoilt = False
        if device == "cuda":
            # What is called fp32 is to be that; torch lets convolutions round their factors to ten bits.
            torch.backends.cudnn.allow_tf32 = False

    def expect(self, jobs: Sequence[Job]) -> None:
        """Say which jobs may come next, in their order, each once; nothing is kept that none of them shares."""
        self._last_use = {key: number for number, job in enumerate(jobs) for key in self._keys(job)}
        self._places = {job.id: number for number, job in enumerate(jobs)}

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def compute(self, task: Task, metrics: Sequence[Metric], observer: Observer) -> JobResult:
        """Compute what is to be done of a job. What goes wrong is recorded in its cells and readings."""
        self._seconds = {}
        start = time.perf_counter()
        provenance: dict[str, Any] = {}
        try:
            outcomes, readings = self._compute(task, metrics, observer, provenance)
        except Exception as error:
            nothing = struck(task, error)
            outcomes, readings = nothing.outcomes, nothing.readings
        self._let_go(task.job)
        share = (time.perf_counter() - start) / max(1, len(task.cells))
        outcomes = [replace(outcome, seconds=share) for outcome in outcomes]
        return JobResult(outcomes, readings, dict(self._seconds), provenance | self._circumstances())

    def _compute(
        self, task: Task, metrics: Sequence[Metric], observer: Observer, provenance: dict[str, Any]
    ) -> tuple[list[Outcome], list[StoredReading]]:
        job = task.job
        train, test = windows = (self._cut(job, TRAIN), self._cut(job, TEST))
        provenance["photographs"] = {
            role: sorted(set(one.photographs)) if source.images.photographs else len(one)
            for role, one, source in (("train", train, job.train), ("test", test, job.test))
        }
        if left_out := sorted({*sift(job.train.images).left_out, *sift(job.test.images).left_out}):
            provenance["images left out"] = left_out
        run = Pass(self._built(job), job.backbone, job.padding, job.precision, self._device)
        with self._timed("extraction"):
            note = run.prepare(train, test)
        seen = self._seen(run, job, windows, observer)
        groups: dict[Key, list[Cell]] = {}
        for cell in task.cells:
            fitted_apart = cell.control if cell.control in TREATMENTS else ""
            groups.setdefault((cell.readout.name, cell.taps, cell.seed, fitted_apart), []).append(cell)
        outcomes = {}
        for group in groups.values():
            seen = self._unspoilt(seen, run, job, observer)
            for cell, outcome in zip(group, self._attempt(group, metrics, seen), strict=True):
                outcomes[cell.id] = replace(outcome, reason=outcome.reason or note)
        readings: list[StoredReading] = []
        for metric in task.measures:
            seen = self._unspoilt(seen, run, job, observer)
            with self._timed("measures"):
                try:
                    readings += self._measured(metric, task.job, seen, run, note)
                except Exception as error:
                    self._note(error)
                    readings.append(StoredReading(metric.name, metric.version, "all", *_why(error)))
        self._unspoilt(seen, run, job, None)
        return [outcomes[cell.id] for cell in task.cells], readings

    def _seen(self, run: Pass, job: Job, windows: tuple[Windows, Windows], observer: Observer) -> Seen:
        train, test = windows
        with self._timed("extraction"):
            of_train, of_test = (self._extracted(run, job, role, observer) for role in (TRAIN, TEST))
        readouts = self._readouts.setdefault((*self._key(job, TRAIN, features=True), job.train.crossed), {})
        return Seen(of_train, of_test, windows, folds(train, test) if job.train.crossed else None, readouts)

    def _note(self, error: Exception) -> None:
        self._spoilt = self._spoilt or isinstance(error, SpoiltError)

    def _unspoilt(self, seen: Seen, run: Pass, job: Job, observer: Observer | None) -> Seen:
        """The same again or, where a component has spoilt it for the others, made anew; if any need it."""
        if self._spoilt:
            self._spoilt = False
            self._features.clear()
            self._readouts.clear()
            if observer:
                return self._seen(run, job, seen.windows, observer)
        return seen

    def _measured(self, metric: Metric, job: Job, seen: Seen, run: Pass, note: str) -> list[StoredReading]:
        """A metric of the job as a whole.

        Raises:
            Inapplicable: if it cannot be had.
            ComponentError: if the metric raises, or breaks its promise.
        """

        @cache
        def surrounded() -> Features:
            job_around = replace(job, padding=SURROUND)
            around = replace(run, padding=SURROUND)
            test = self._cut(job_around, TEST)
            around.prepare(test)
            return extract(around, test, grid=job.test_grid)

        observation = Observation(seen.splits(), seen.test, seen.windows[1].photographs, surrounded)
        with visit(metric, job.training), unspoilt(metric, seen.train, seen.test):
            return [
                _stored(metric, reading, note, mutual=seen.mutual)
                for reading in (metric.of_job(observation) if metric.of_job else ())
            ]

    def _attempt(self, cells: Sequence[Cell], metrics: Sequence[Metric], seen: Seen) -> list[Outcome]:
        """One readout of all its targets; a target or a readout that fails takes no other with it."""
        patterns, outcomes = {}, {}
        for cell in cells:
            try:
                patterns[cell] = pattern(cell.target)
            except Exception as error:
                outcomes[cell] = _struck([cell], error)[0]
        try:
            found = list(self._read(patterns, metrics, seen)) if patterns else []
        except Exception as error:
            self._note(error)
            found = _struck(list(patterns), error)
        outcomes |= dict(zip(patterns, found, strict=True))
        return [outcomes[cell] for cell in cells]

    def _read(self, drawn: Mapping[Cell, torch.Tensor], metrics: Sequence[Metric], seen: Seen) -> Iterator[Outcome]:
        """Fit one readout to the targets of all its cells, unless that is done, and score each."""
        # Cells that check different ones by the same control have a target in common.
        patterns = {cell.target.name: target.to(self._device) for cell, target in drawn.items()}
        with self._timed("readout"):
            maps, remarks = self._predicted(list(drawn), patterns, seen)
        predictions = dict(zip(patterns, maps.unbind(1), strict=True))
        photographs = seen.windows[1].photographs
        for cell in drawn:
            with self._timed("scoring"):
                scores, problems, degenerate = _scored(
                    cell,
                    predictions[cell.target.name],
                    patterns[cell.target.name],
                    metrics,
                    photographs,
                    mutual=seen.mutual,
                )
            yield Outcome(
                cell.identity(),
                "failed" if problems else "ok",
                "; ".join(problems) or remarks.get(cell.target.name, ""),
                n_test_photos=len(set(photographs)),
                degenerate=degenerate,
                mean_map=predictions[cell.target.name].mean(0).float().cpu().numpy().astype("<f4").tobytes(),
                scores=scores,
                reach=_reach(cell, patterns[cell.target.name], scores),
                examples=[] if cell.control else examples(seen.windows[1], predictions[cell.target.name]),
            )

    def _predicted(
        self, cells: Sequence[Cell], patterns: Mapping[str, torch.Tensor], seen: Seen
    ) -> tuple[torch.Tensor, dict[str, str]]:
        """What a readout draws, each test image by the one of its fold: float32 [n, targets, side, side].

        And by target what it remarks.

        Raises:
            ComponentError: if the readout raises, or breaks its promise.
        """
        cell, job = cells[0], cells[0].job
        with visit(cell.readout):
            of_train, side = cell.readout.grid(job.grid), cell.readout.grid(job.test_grid)
        taps = tap_numbers(cell.taps, job.backbone.taps)
        treatment = TREATMENTS.get(cell.control, PLAIN)
        training = treatment.of(
            Training(
                features=seen.train.of_taps(taps),
                photographs=seen.windows[0].photographs,
                patterns=torch.stack(list(patterns.values())),
                image_size=job.image_size,
                seed=cell.seed or 0,
            ),
            of_train,
        )
        test = treatment.features(seen.test.of_taps(taps), TEST, training.patterns, side)
        key = (cell.readout, *taps, cell.seed, treatment, *patterns)
        if key not in seen.readouts:
            with visit(cell.readout, job.training), unspoilt(cell.readout, seen.train, seen.test):
                seen.readouts[key] = [cell.readout.fit(task) for task in seen.tasks(training)]
        predictions = test.taps[0].new_empty((len(test), len(patterns), side, side), dtype=torch.float32)
        for numbers, fitted in zip(seen.tested, seen.readouts[key], strict=True):
            if not numbers:
                continue  # there are too few test images for every readout to draw for one
            expected = (len(numbers), *predictions.shape[1:])
            with visit(cell.readout, job.training), unspoilt(cell.readout, seen.test):
                drawn = fitted.predict(test.of_images(numbers))
                fits = torch.is_tensor(drawn) and drawn.shape == expected and drawn.device == predictions.device
                fits = fits and drawn.is_floating_point()
            if not fits:
                raise ComponentError(f"{cell.readout.title} must predict maps of shape {expected} on {self._device}")
            if not bool(drawn.isfinite().all()):
                raise ComponentError(f"{cell.readout.title} predicts values that are not finite")
            predictions[numbers] = drawn.detach().float()
        remarks: dict[str, str] = {}
        with visit(cell.readout):
            for fitted in seen.readouts[key]:
                said = map(str, getattr(fitted, "remarks", ()))
                remarks = dict(zip(patterns, said, strict=False)) | {name: old for name, old in remarks.items() if old}
        return predictions, remarks

    # What jobs share.

    def _key(self, job: Job, role: int, *, features: bool = False) -> Key:
        """Names the windows of a role, or a network's features of them."""
        sources = (job.train, job.test)
        dealing = (*sources, job.n_test)
        if dealing not in self._dealt:
            halved = (job.train.halved, job.test.halved)
            self._dealt[dealing] = deal(
                job.train.images, job.test.images, job.n_test, halved, crossed=job.train.crossed
            )
        size = job.test_size or job.image_size if role == TEST else job.image_size
        windows = (
            *(sources[role].images, sources[role].turned, role, (job.n_train, job.n_test)[role], size),
            *(photograph.digest for photograph in self._dealt[dealing][role]),
            job.padding is not None and job.padding.border == "surround",
        )
        return (job.backbone, job.weights, job.padding, job.precision, windows) if features else windows

    def _keys(self, job: Job) -> list[Key]:
        return [self._key(job, role, features=features) for role in (TRAIN, TEST) for features in (False, True)]

    def _let_go(self, job: Job) -> None:
        """Forget what no job after this one shares."""
        place = self._places.get(job.id, len(self._places))
        for kept in (self._windows, self._features):
            for key in [key for key in kept if self._last_use.get(key, -1) <= place]:
                del kept[key]
        for key in [key for key in self._readouts if key[:-1] not in self._features]:
            del self._readouts[key]

    def _cut(self, job: Job, role: int) -> Windows:
        key, source = self._key(job, role), (job.train, job.test)[role]
        if key not in self._windows:
            with self._timed("images"):
                cut = windows(
                    source.images,
                    self._dealt[job.train, job.test, job.n_test][role],
                    role,
                    (job.n_train, job.n_test)[role],
                    job.test_size or job.image_size if role == TEST else job.image_size,
                    pieces=job.padding is not None and job.padding.border == "surround",
                )
                self._windows[key] = cut.turned() if source.turned else cut
        return self._windows[key]

    def _extracted(self, run: Pass, job: Job, role: int, observer: Observer) -> Features:
        key, cut = self._key(job, role, features=True), self._cut(job, role)
        if key in self._features:
            observer.saw(job, len(cut))
        else:
            grid = (job.grid, job.test_grid)[role]
            # The same whichever job comes first to this network under its padding.
            with settled(f"{run.backbone.name} {job.weights.label} {run.padding and run.padding.name}"):
                self._features[key] = extract(run, cut, grid=grid, progress=partial(observer.saw, job))
        return self._features[key]

    def _built(self, job: Job) -> nn.Module:
        key = (job.backbone.name, job.weights.label, job.weights.digest)
        if self._network is None or self._network[0] != key:
            self._network = None  # let go of the last one before the next takes its memory
            with self._timed("network"):
                network = build(job.backbone, job.weights).to(self._device)
                with visit(job.backbone):
                    fold_norms(network, torch.zeros(1, 3, job.image_size, job.image_size, device=self._device))
                self._network = key, network
        return self._network[1]

    def _circumstances(self) -> dict[str, Any]:
        packages = ("torch", "timm", "numpy", "pillow")
        return {
            "posbench": __version__,
            "packages": {name: version(name) for name in packages},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name() if self._device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
        }


def _stored(metric: Metric, reading: Reading, note: str, *, mutual: bool) -> StoredReading:
    """A reading as it is stored, with its interval.

    Raises:
        ValueError: if one of its numbers is not finite.
    """
    numbers = {str(name): float(value) for name, value in reading.by_photograph.items()}
    mean, lo, hi = interval(list(numbers.values()) or [0.0], mutual=mutual)
    value = (mean, lo, hi) if reading.value is None else (float(reading.value), None, None)
    picture = None if reading.picture is None else reading.picture.detach().float().cpu().numpy()
    if not np.isfinite([value[0], *numbers.values()]).all() or (picture is not None and not np.isfinite(picture).all()):
        raise ValueError("a reading holds numbers that are not finite")
    return StoredReading(
        *(metric.name, metric.version, str(reading.tap), "ok", note, *value, numbers),
        *((None, None) if picture is None else (picture.astype("<f4").tobytes(), picture.shape[1])),
    )


def _reach(cell: Cell, pattern: torch.Tensor, scores: Sequence[StoredScore]) -> float | None:
    """How far the rank correlation reaches, where it is of a whole map drawn at the size that was trained on."""
    spc = [score.value for score in scores if score.metric == "spc"]
    if not spc or cell.control in TREATMENTS or cell.job.test_size:
        return None
    return reach(pattern.cpu().numpy(), spc[0], cell.job.image_size)


def _scored(
    cell: Cell,
    drawn: torch.Tensor,
    pattern: torch.Tensor,
    metrics: Sequence[Metric],
    photographs: Sequence[str],
    *,
    mutual: bool,
) -> tuple[list[StoredScore], list[str], float]:
    """What the metrics say of one cell, why some could not, and the share of degenerate maps.

    Some images at a time, since at image size their maps are large. A metric that fails takes no other with it.
    """
    of_metric: dict[Metric, list[torch.Tensor]] = {metric: [] for metric in metrics}
    problems, degenerate = [], 0.0
    side = cell.job.test_size or cell.job.image_size
    at_once = max(1, MAP_CELLS // side**2)
    for start in range(0, len(drawn), at_once):
        part = drawn[start : start + at_once]
        maps, target = judged(cell, part, pattern)
        maps, share = flatten_degenerate(maps, target)
        degenerate += share * len(part) / len(drawn)
        for metric, found in list(of_metric.items()):
            try:
                found.append(values(metric, maps, target))
            except Exception as error:
                problems.append(described(error))
                del of_metric[metric]
    scores = []
    for metric, found in of_metric.items():
        one = summarised(torch.cat(found), photographs, mutual=mutual)
        scores.append(StoredScore(metric.name, metric.version, one.value, one.lo, one.hi, one.by_photograph))
    return scores, problems, degenerate


def struck(task: Task, error: Exception) -> JobResult:
    """What becomes of a job that something outside its cells has ended."""
    readings = [StoredReading(m.name, m.version, "all", *_why(error)) for m in task.measures]
    return JobResult(_struck(task.cells, error), readings)


def _struck(cells: Sequence[Cell], error: Exception) -> list[Outcome]:
    """What becomes of cells in which a component raised.

    Components are other people's code and may raise anything: the run goes on, and the reason is kept.
    """
    return [Outcome(cell.identity(), *_why(error)) for cell in cells]


def _why(error: Exception) -> tuple[str, str]:
    """What becomes of a thing in which something raised, and the reason."""
    return "skipped" if isinstance(error, Inapplicable) else "failed", described(error)


def check(jobs: Sequence[Job], limit: float | None = None) -> set[str]:
    """Find out before any job runs what would end them all.

    Args:
        limit: seconds that a plugin's network may take to be built or to follow shapes, or None.

    Returns:
        The ids of jobs whose networks took down the process in which they were tried, or took too long: these had
        better run in a process of their own.

    Raises:
        UsageError: if a network cannot take images this small, or photographs are too few or too many cannot be read.
        MissingError: if a checkpoint that a user names does not fit.
    """
    deadly: set[Backbone] = set()
    for backbone, size in {(job.backbone, job.image_size) for job in jobs}:
        try:
            enough = tried(backbone, partial(smallest_size, backbone, size), limit)
        except ComponentError:
            deadly.add(backbone)
            continue
        if enough is not None and enough > size:
            raise UsageError(
                f"image size {size} is too small for backbone {backbone.name!r}: give --image-size {enough}"
            )
    named = {(job.backbone, job.weights) for job in jobs if job.weights.path and not job.weights.checkpoint}
    for backbone, weights in named:
        if backbone not in deadly:
            with suppress(ComponentError):  # its jobs will tell
                tried(backbone, partial(_fits, backbone, weights), limit)
    for train, test, n_test in {(job.train, job.test, job.n_test) for job in jobs}:
        deal(train.images, test.images, n_test, (train.halved, test.halved), crossed=train.crossed)
    return {job.id for job in jobs if job.backbone in deadly}


def _fits(backbone: Backbone, weights: Weights) -> None:
    build(backbone, weights)
