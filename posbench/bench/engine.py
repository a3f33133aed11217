"""Computes jobs: one forward pass of the network, then all readouts, all targets and all metrics."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import torch

from posbench.bench import scoring
from posbench.bench.cache import FeaturesModifiedError, JobCache, JobFeatures, Key, Stopwatch, features_unmodified
from posbench.bench.field_types import Status
from posbench.bench.plan import Cell, Job, Task
from posbench.bench.records import Measurement, Outcome
from posbench.bench.taps import tap_numbers
from posbench.bench.targets import pattern
from posbench.core.errors import ComponentError
from posbench.core.version import __version__
from posbench.data.crops import FOLDS, TEST, TRAIN, Crops, folds
from posbench.data.photographs import readable_photographs
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.plugin.components import Metric, Padding
from posbench.plugin.execution import Observer
from posbench.plugin.features import Features
from posbench.plugin.observation import Observation
from posbench.plugin.sandbox import sandboxed, trusted_callback
from posbench.plugin.training import Training

#: The padding under which a job's images are surrounded by more of their photographs.
SURROUND = Padding(name="surround", summary="", version="1", border="surround")


@dataclass
class JobResult:
    """The results of one job.

    Attributes:
        outcomes: one a cell, in the order of the cells.
        measurements: of the job as a whole.
        seconds: by stage: images, network, extraction, readout, scoring.
        provenance: what else to store with it.
    """

    outcomes: list[Outcome]
    measurements: list[Measurement] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst status among cells and measurements: failed, skipped or ok."""
        return min((status for status, _ in self._reasons()), key=["failed", "skipped", "ok"].index)

    @property
    def failures(self) -> list[str]:
        """The reasons of all failures, each once."""
        return [reason for status, reason in dict.fromkeys(self._reasons()) if status == "failed"]

    def _reasons(self) -> list[tuple[Status, str]]:
        results: list[Outcome | Measurement] = [*self.outcomes, *self.measurements]
        return [(result.status, result.reason) for result in results]


class Engine:
    """Computes jobs on one device, and keeps what later jobs share. `core.device.configure_torch` comes before."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._stopwatch = Stopwatch()
        self._cache = JobCache(device, self._stopwatch)
        self._modified = False  # a component has written into the features

    def expect(self, jobs: Sequence[Job]) -> None:
        """Announce the jobs that may follow; see `JobCache.expect`."""
        self._cache.expect(jobs)

    def compute(self, task: Task, metrics: Sequence[Metric], observer: Observer) -> JobResult:
        """Compute the cells and measurements of a task. Errors are recorded in the cells and measurements."""
        self._stopwatch.seconds = {}
        start = time.perf_counter()
        provenance: dict[str, Any] = {}
        try:
            result = JobResult(*self._compute(task, metrics, observer, provenance))
        except Exception as error:
            result = failed_result(task, error)
        self._cache.discard(task.job)
        share = (time.perf_counter() - start) / max(1, len(task.cells))
        result.outcomes = [replace(outcome, seconds=share) for outcome in result.outcomes]
        result.seconds, result.provenance = dict(self._stopwatch.seconds), provenance | self._environment()
        return result

    def _compute(
        self, task: Task, metrics: Sequence[Metric], observer: Observer, provenance: dict[str, Any]
    ) -> tuple[list[Outcome], list[Measurement]]:
        job = task.job
        crops = (self._cache.crops(job, TRAIN), self._cache.crops(job, TEST))
        provenance |= _photographs(job, crops)
        run = ForwardPass(self._cache.network(job), job.backbone, job.padding, job.precision, self._device)
        with self._stopwatch.timed("extraction"):
            note = run.prepare(*crops)
        features = self._features(run, job, crops, observer)
        outcomes: dict[str, Outcome] = {}
        groups: dict[Key, list[Cell]] = {}  # of cells that differ in their target alone
        for cell in task.cells:
            groups.setdefault((cell.readout.name, cell.taps, cell.seed, _fit_key(cell)), []).append(cell)
        for cells in groups.values():
            features = self._unmodified(features, run, job, observer)
            for cell, outcome in zip(cells, self._outcomes(cells, metrics, features), strict=True):
                outcomes[cell.id] = replace(outcome, reason=outcome.reason or note)
        measurements: list[Measurement] = []
        for metric in task.measures:
            features = self._unmodified(features, run, job, observer)
            with self._stopwatch.timed("measures"):
                try:
                    measurements += self._measurements(metric, job, features, run, note)
                except Exception as error:
                    self._modified |= isinstance(error, FeaturesModifiedError)
                    measurements.append(scoring.failed_measurement(metric, error))
        self._discard_modified()
        return [outcomes[cell.id] for cell in task.cells], measurements

    def _features(self, run: ForwardPass, job: Job, crops: tuple[Crops, Crops], observer: Observer) -> JobFeatures:
        with self._stopwatch.timed("extraction"):
            progress = partial(observer.progress, job.id)
            train, test = (self._cache.features(run, job, role, progress) for role in (TRAIN, TEST))
        numbers: list[tuple[Sequence[int], Sequence[int]]] = [(range(len(train)), range(len(test)))]
        if job.train.cross_fitted:
            fitted, tested = folds(*crops)
            numbers = [((fitted != i).nonzero()[0].tolist(), (tested == i).nonzero()[0].tolist()) for i in range(FOLDS)]
        return JobFeatures(train, test, crops, numbers, self._cache.readouts(job))

    def _discard_modified(self) -> bool:
        """Discard the features if a component has written into them; return True if so."""
        modified, self._modified = self._modified, False
        if modified:
            self._cache.discard_features()
        return modified

    def _unmodified(self, features: JobFeatures, run: ForwardPass, job: Job, observer: Observer) -> JobFeatures:
        """Return the features, extracted again if a component has written into them."""
        return self._features(run, job, features.crops, observer) if self._discard_modified() else features

    def _measurements(
        self, metric: Metric, job: Job, features: JobFeatures, run: ForwardPass, note: str
    ) -> list[Measurement]:
        @cache
        def surrounded() -> Features:
            surrounded_run = replace(run, padding=SURROUND)
            with trusted_callback():
                crops = self._cache.crops(replace(job, padding=SURROUND), TEST)
                surrounded_run.prepare(crops)
                return extract(surrounded_run, crops, grid=job.test_grid)

        observation = Observation(features.splits(), features.test, features.crops[1].photographs, surrounded)
        with features_unmodified(metric, features.train, features.test), sandboxed(metric, job.training_id):
            return [
                scoring.measurement(metric, reading, note, mutual=features.mutual)
                for reading in (metric.of_job(observation) if metric.of_job else ())
            ]

    def _outcomes(self, cells: Sequence[Cell], metrics: Sequence[Metric], features: JobFeatures) -> list[Outcome]:
        """Compute cells that are fitted together. A target or readout that raises fails its own cells alone."""
        patterns: dict[Cell, torch.Tensor] = {}
        outcomes: dict[Cell, Outcome] = {}
        for cell in cells:
            try:
                patterns[cell] = pattern(cell.target)
            except Exception as error:
                outcomes[cell] = scoring.failed_outcome(cell, error)
        try:
            outcomes |= self._scored(patterns, metrics, features) if patterns else {}
        except Exception as error:
            self._modified |= isinstance(error, FeaturesModifiedError)
            outcomes |= {cell: scoring.failed_outcome(cell, error) for cell in patterns}
        return [outcomes[cell] for cell in cells]

    def _scored(
        self, drawn: Mapping[Cell, torch.Tensor], metrics: Sequence[Metric], features: JobFeatures
    ) -> dict[Cell, Outcome]:
        """Fit one readout to the targets of all cells, unless it is already fitted, and score each cell."""
        # Cells that check different cells by the same control have a target in common.
        patterns = {cell.target.name: target.to(self._device) for cell, target in drawn.items()}
        with self._stopwatch.timed("readout"):
            maps, remarks = self._predictions(list(drawn), patterns, features)
        predictions = dict(zip(patterns, maps.unbind(1), strict=True))
        outcomes = {}
        for cell in drawn:
            name = cell.target.name
            maps, remark = predictions[name], remarks.get(name, "")
            with self._stopwatch.timed("scoring"):
                outcomes[cell] = scoring.score_cell(
                    cell, maps, patterns[name], metrics, features.crops[1], remark=remark, mutual=features.mutual
                )
        return outcomes

    def _predictions(
        self, cells: Sequence[Cell], patterns: Mapping[str, torch.Tensor], features: JobFeatures
    ) -> tuple[torch.Tensor, dict[str, str]]:
        """Return the maps that readouts predict for the test images of their folds, and their remarks by target.

        The maps are float32 [n, targets, side, side].
        """
        cell, job, readout = cells[0], cells[0].job, cells[0].readout
        with sandboxed(readout):
            sides = readout.grid(job.grid), readout.grid(job.test_grid)
        taps = tap_numbers(cell.taps, job.backbone.taps)
        training, test = _inputs(cell, taps, torch.stack(list(patterns.values())), features, sides)
        key = (readout, *taps, cell.seed, _fit_key(cell), *patterns)
        if key not in features.readouts:
            with features_unmodified(readout, features.train, features.test), sandboxed(readout, job.training_id):
                features.readouts[key] = [readout.fit(training.of_images(numbers)) for numbers, _ in features.folds]
        shape = (len(test), len(patterns), sides[1], sides[1])
        predictions = torch.empty(shape, dtype=torch.float32, device=test.taps[0].device)
        for (_, tested), fitted in zip(features.folds, features.readouts[key], strict=True):
            if not tested:
                continue  # there are fewer test images than readouts
            expected = (len(tested), *shape[1:])
            with features_unmodified(readout, features.test), sandboxed(readout, job.training_id):
                maps = fitted.predict(test.of_images(tested))
                valid = torch.is_tensor(maps) and maps.shape == expected and maps.device == predictions.device
                valid = valid and maps.is_floating_point()
            if not valid:
                raise ComponentError(f"{readout.title} must predict maps of shape {expected} on {self._device}")
            if not bool(maps.isfinite().all()):
                raise ComponentError(f"{readout.title} predicts values that are not finite")
            predictions[tested] = maps.detach().float()
        remarks: dict[str, str] = {}
        with sandboxed(readout):
            for fitted in features.readouts[key]:
                texts = dict(zip(patterns, map(str, getattr(fitted, "remarks", ())), strict=False))
                remarks = texts | {name: text for name, text in remarks.items() if text}
        return predictions, remarks

    def _environment(self) -> dict[str, Any]:
        return {
            "posbench": __version__,
            "packages": {name: version(name) for name in ("torch", "timm", "numpy", "pillow")},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name() if self._device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self._stopwatch.seconds.items()},
        }


def _photographs(job: Job, crops: tuple[Crops, Crops]) -> dict[str, Any]:
    """Return the part of the provenance that names the photographs, or counts generated images, of each role."""
    roles = zip(("train", "test"), crops, (job.train, job.test), strict=True)
    photographs = {
        role: sorted(set(images.photographs)) if source.images.photographs else len(images)
        for role, images, source in roles
    }
    unreadable = {name for source in (job.train, job.test) for name in readable_photographs(source.images).left_out}
    return {"photographs": photographs} | ({"images left out": sorted(unreadable)} if unreadable else {})


def _fit_key(cell: Cell) -> Key:
    """Return what separates the fit of a control's readouts from that of plain cells, if anything does."""
    check = cell.check
    return (check.name, check.features, check.held_out) if check and check.separate_fit else ()


def _inputs(
    cell: Cell, taps: Sequence[int], patterns: torch.Tensor, features: JobFeatures, sides: tuple[int, int]
) -> tuple[Training, Features]:
    """Return what a cell's readout is fitted on, and the test features, changed by a control that does so.

    The patterns of the targets are [targets, 256, 256], and the sides those of maps of training and of test images.
    """
    check = cell.check
    train, test = features.train.of_taps(taps), features.test.of_taps(taps)
    if cell.control and check and check.features:
        with features_unmodified(cell.control, features.train, features.test), sandboxed(cell.control):
            changed = check.features(train, patterns, sides[0], False), check.features(test, patterns, sides[1], True)
            for before, after in zip((train, test), changed, strict=True):
                if not isinstance(after, Features) or (len(after), after.grid) != (len(before), before.grid):
                    raise ValueError("the changed features must be of the same images and grid")
        train, test = changed
    training = Training(
        features=train,
        photographs=features.crops[0].photographs,
        patterns=patterns,
        image_size=cell.job.image_size,
        seed=cell.seed or 0,
        held_out=check.held_out if check else "",
    )
    return training, test


def failed_result(task: Task, error: Exception) -> JobResult:
    """Return the result of a job that an error outside its cells has ended."""
    measurements = [scoring.failed_measurement(metric, error) for metric in task.measures]
    return JobResult([scoring.failed_outcome(cell, error) for cell in task.cells], measurements)
