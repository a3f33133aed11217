"""Runs a plan, job by job: one pass of the network, then all readouts, all targets, all metrics."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posbench.bench import outcomes
from posbench.bench.cache import FeaturesModifiedError, JobCache, Key, Stopwatch, features_unmodified
from posbench.bench.plan import Cell, Job, Task, tap_numbers
from posbench.bench.records import Measurement, Outcome
from posbench.bench.targets import pattern
from posbench.bench.treatments import PLAIN, TREATMENTS
from posbench.core.errors import ComponentError
from posbench.core.version import __version__
from posbench.data.crops import FOLDS, TEST, TRAIN, Crops, folds
from posbench.data.photographs import readable_photographs
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.plugin.components import Fitted, Metric, Padding
from posbench.plugin.execution import Observer
from posbench.plugin.features import Features
from posbench.plugin.observation import Observation, Split
from posbench.plugin.sandbox import sandboxed, trusted_callback
from posbench.plugin.training import Training

#: Under which a job's images are seen within more of their photographs.
SURROUND = Padding(name="surround", summary="", version="1", border="surround")


@dataclass
class JobResult:
    """What became of one job.

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
        """The worst among the cells and readings: failed, skipped or ok."""
        found = {one.status for one in self.outcomes} | {one.status for one in self.measurements}
        return min(found, key=["failed", "skipped", "ok"].index)

    @property
    def failures(self) -> list[str]:
        """Why something failed, each reason once."""
        reasons = [(one.status, one.reason) for one in self.outcomes]
        reasons += [(one.status, one.reason) for one in self.measurements]
        return [reason for status, reason in dict.fromkeys(reasons) if status == "failed"]


@dataclass
class JobFeatures:
    """What the cells of one job are read from.

    Attributes:
        train, test: features.
        windows: of training and of testing.
        folds: of each training and each test image, the cross-fitted readout that it belongs to; None for one readout.
        readouts: those already fitted on these training images, one a fold, by what they were fitted for.
    """

    train: Features
    test: Features
    windows: tuple[Crops, Crops]
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
        self._stopwatch = Stopwatch()
        self._shared = JobCache(device, self._stopwatch)
        self._spoilt = False

    def expect(self, jobs: Sequence[Job]) -> None:
        """Say which jobs may come next, in their order, each once; nothing is kept that none of them shares."""
        self._shared.expect(jobs)

    def compute(self, task: Task, metrics: Sequence[Metric], observer: Observer) -> JobResult:
        """Compute what is to be done of a job. What goes wrong is recorded in its cells and readings."""
        self._stopwatch.seconds = {}
        start = time.perf_counter()
        provenance: dict[str, Any] = {}
        try:
            result = JobResult(*self._compute(task, metrics, observer, provenance))
        except Exception as error:
            result = failed_result(task, error)
        self._shared.discard(task.job)
        share = (time.perf_counter() - start) / max(1, len(task.cells))
        result.outcomes = [replace(outcome, seconds=share) for outcome in result.outcomes]
        result.seconds, result.provenance = dict(self._stopwatch.seconds), provenance | self._circumstances()
        return result

    def _compute(
        self, task: Task, metrics: Sequence[Metric], observer: Observer, provenance: dict[str, Any]
    ) -> tuple[list[Outcome], list[Measurement]]:
        job = task.job
        train, test = windows = (self._shared.windows(job, TRAIN), self._shared.windows(job, TEST))
        provenance["photographs"] = {
            role: sorted(set(one.photographs)) if source.images.photographs else len(one)
            for role, one, source in (("train", train, job.train), ("test", test, job.test))
        }
        if left_out := sorted(
            {*readable_photographs(job.train.images).left_out, *readable_photographs(job.test.images).left_out}
        ):
            provenance["images left out"] = left_out
        run = ForwardPass(self._shared.network(job), job.backbone, job.padding, job.precision, self._device)
        with self._stopwatch.timed("extraction"):
            note = run.prepare(train, test)
        seen = self._seen(run, job, windows, observer)
        groups: dict[Key, list[Cell]] = {}
        for cell in task.cells:
            fitted_apart = cell.control if cell.control in TREATMENTS else ""
            groups.setdefault((cell.readout.name, cell.taps, cell.seed, fitted_apart), []).append(cell)
        found = {}
        for group in groups.values():
            seen = self._unspoilt(seen, run, job, observer)
            for cell, outcome in zip(group, self._attempt(group, metrics, seen), strict=True):
                found[cell.id] = replace(outcome, reason=outcome.reason or note)
        readings: list[Measurement] = []
        for metric in task.measures:
            seen = self._unspoilt(seen, run, job, observer)
            with self._stopwatch.timed("measures"):
                try:
                    readings += self._measured(metric, task.job, seen, run, note)
                except Exception as error:
                    self._note(error)
                    readings.append(outcomes.unread(metric, error))
        self._unspoilt(seen, run, job, None)
        return [found[cell.id] for cell in task.cells], readings

    def _seen(self, run: ForwardPass, job: Job, windows: tuple[Crops, Crops], observer: Observer) -> JobFeatures:
        train, test = windows
        with self._stopwatch.timed("extraction"):
            progress = partial(observer.progress, job.id)
            of_train, of_test = (self._shared.features(run, job, role, progress) for role in (TRAIN, TEST))
        crossed = folds(train, test) if job.train.crossed else None
        return JobFeatures(of_train, of_test, windows, crossed, self._shared.readouts(job))

    def _note(self, error: Exception) -> None:
        self._spoilt = self._spoilt or isinstance(error, FeaturesModifiedError)

    def _unspoilt(self, seen: JobFeatures, run: ForwardPass, job: Job, observer: Observer | None) -> JobFeatures:
        """The same again or, where a component has spoilt it for the others, made anew; if any need it."""
        if self._spoilt:
            self._spoilt = False
            self._shared.discard_features()
            if observer:
                return self._seen(run, job, seen.windows, observer)
        return seen

    def _measured(self, metric: Metric, job: Job, seen: JobFeatures, run: ForwardPass, note: str) -> list[Measurement]:
        """A metric of the job as a whole.

        Raises:
            Inapplicable: if it cannot be had.
            ComponentError: if the metric raises, or breaks its promise.
        """

        @cache
        def surrounded() -> Features:
            job_around = replace(job, padding=SURROUND)
            around = replace(run, padding=SURROUND)
            with trusted_callback():
                test = self._shared.windows(job_around, TEST)
                around.prepare(test)
                return extract(around, test, grid=job.test_grid)

        observation = Observation(seen.splits(), seen.test, seen.windows[1].photographs, surrounded)
        with features_unmodified(metric, seen.train, seen.test), sandboxed(metric, job.training):
            return [
                outcomes.read(metric, reading, note, mutual=seen.mutual)
                for reading in (metric.of_job(observation) if metric.of_job else ())
            ]

    def _attempt(self, cells: Sequence[Cell], metrics: Sequence[Metric], seen: JobFeatures) -> list[Outcome]:
        """One readout of all its targets; a target or a readout that fails takes no other with it."""
        patterns, found = {}, {}
        for cell in cells:
            try:
                patterns[cell] = pattern(cell.target)
            except Exception as error:
                found[cell] = outcomes.failed_result(cell, error)
        try:
            found |= self._read(patterns, metrics, seen) if patterns else {}
        except Exception as error:
            self._note(error)
            found |= {cell: outcomes.failed_result(cell, error) for cell in patterns}
        return [found[cell] for cell in cells]

    def _read(
        self, drawn: Mapping[Cell, torch.Tensor], metrics: Sequence[Metric], seen: JobFeatures
    ) -> dict[Cell, Outcome]:
        """Fit one readout to the targets of all its cells, unless that is done, and score each."""
        # Cells that check different ones by the same control have a target in common.
        patterns = {cell.target.name: target.to(self._device) for cell, target in drawn.items()}
        with self._stopwatch.timed("readout"):
            maps, remarks = self._predicted(list(drawn), patterns, seen)
        predictions = dict(zip(patterns, maps.unbind(1), strict=True))
        found = {}
        for cell in drawn:
            name = cell.target.name
            with self._stopwatch.timed("scoring"):
                found[cell] = outcomes.scored(
                    cell,
                    predictions[name],
                    patterns[name],
                    metrics,
                    seen.windows[1],
                    remark=remarks.get(name, ""),
                    mutual=seen.mutual,
                )
        return found

    def _predicted(
        self, cells: Sequence[Cell], patterns: Mapping[str, torch.Tensor], seen: JobFeatures
    ) -> tuple[torch.Tensor, dict[str, str]]:
        """What a readout draws, each test image by the one of its fold: float32 [n, targets, side, side].

        And by target what it remarks.

        Raises:
            ComponentError: if the readout raises, or breaks its promise.
        """
        cell, job = cells[0], cells[0].job
        with sandboxed(cell.readout):
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
            with features_unmodified(cell.readout, seen.train, seen.test), sandboxed(cell.readout, job.training):
                seen.readouts[key] = [cell.readout.fit(task) for task in seen.tasks(training)]
        predictions = test.taps[0].new_empty((len(test), len(patterns), side, side), dtype=torch.float32)
        for numbers, fitted in zip(seen.tested, seen.readouts[key], strict=True):
            if not numbers:
                continue  # there are too few test images for every readout to draw for one
            expected = (len(numbers), *predictions.shape[1:])
            with features_unmodified(cell.readout, seen.test), sandboxed(cell.readout, job.training):
                drawn = fitted.predict(test.of_images(numbers))
                fits = torch.is_tensor(drawn) and drawn.shape == expected and drawn.device == predictions.device
                fits = fits and drawn.is_floating_point()
            if not fits:
                raise ComponentError(f"{cell.readout.title} must predict maps of shape {expected} on {self._device}")
            if not bool(drawn.isfinite().all()):
                raise ComponentError(f"{cell.readout.title} predicts values that are not finite")
            predictions[numbers] = drawn.detach().float()
        remarks: dict[str, str] = {}
        with sandboxed(cell.readout):
            for fitted in seen.readouts[key]:
                said = map(str, getattr(fitted, "remarks", ()))
                remarks = dict(zip(patterns, said, strict=False)) | {name: old for name, old in remarks.items() if old}
        return predictions, remarks

    def _circumstances(self) -> dict[str, Any]:
        packages = ("torch", "timm", "numpy", "pillow")
        return {
            "posbench": __version__,
            "packages": {name: version(name) for name in packages},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name() if self._device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self._stopwatch.seconds.items()},
        }


def failed_result(task: Task, error: Exception) -> JobResult:
    """What becomes of a job that something outside its cells has ended."""
    readings = [outcomes.unread(metric, error) for metric in task.measures]
    return JobResult([outcomes.failed_result(cell, error) for cell in task.cells], readings)
