"""Runs a plan, job by job: one pass of the network, then all readouts, all targets, all metrics."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import nn

from posbench import __version__
from posbench.components import Fitted, Metric
from posbench.errors import Inapplicable, MissingError, PosbenchError, UsageError, one_line
from posbench.features import Features, extract
from posbench.maps import pattern, resize
from posbench.networks import build, smallest_size
from posbench.passes import Pass
from posbench.plan import Cell, Identity, Job, Plan, tap_numbers
from posbench.scoring import flatten_degenerate, score
from posbench.store import Outcome, Store, StoredScore
from posbench.training import Training
from posbench.windows import TEST, TRAIN, Windows, check_photographs, deal, windows


class Observer(Protocol):
    """Who is told how a run goes on."""

    def started(self, job: Job) -> None: ...

    def saw(self, images: int) -> None:
        """Some more images have passed through the network."""
        ...

    def finished(self, job: Job, result: JobResult) -> None: ...


@dataclass
class JobResult:
    """What became of one job.

    Attributes:
        outcomes: one a cell, in the order of the cells.
        seconds: by stage: images, network, extraction, readout, scoring.
        provenance: what else to store with it.
    """

    outcomes: list[Outcome]
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst among the cells: failed, skipped or ok."""
        return min((outcome.status for outcome in self.outcomes), key=["failed", "skipped", "ok"].index)


#: Of training, and of testing.
Both = tuple[Windows, Windows]


@dataclass
class Trained:
    """What jobs that differ in their test images alone share.

    Attributes:
        job: their `Job.training`.
        features: of the training images.
        readouts: fitted on them, by what they were fitted for.
    """

    job: Identity
    features: Features
    readouts: dict[tuple[object, ...], Fitted] = field(default_factory=dict)


class Engine:
    """Computes jobs on one device, keeping between jobs what the next one is likely to share."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._network: tuple[tuple[str, str, str], nn.Module] | None = None
        self._windows: dict[tuple[object, ...], Windows] = {}
        self._trained: Trained | None = None
        self._seconds: dict[str, float] = {}
        if device == "cuda":
            # What is called fp32 is to be that; torch lets convolutions round their factors to ten bits.
            torch.backends.cudnn.allow_tf32 = False

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def compute(self, job: Job, cells: Sequence[Cell], metrics: Sequence[Metric], observer: Observer) -> JobResult:
        """Compute a job. What a component raises is recorded in its cells.

        Raises:
            UsageError, MissingError: for input that the user has to mend, such as a checkpoint that does not fit.
        """
        self._seconds = {}
        start = time.perf_counter()
        provenance: dict[str, Any] = {}
        try:
            outcomes = self._compute(job, cells, metrics, observer, provenance)
        except (UsageError, MissingError):
            raise
        except Exception as error:
            outcomes = _struck(cells, error)
        share = (time.perf_counter() - start) / len(cells)
        outcomes = [replace(outcome, seconds=share) for outcome in outcomes]
        return JobResult(outcomes, dict(self._seconds), provenance | self._circumstances())

    def _compute(
        self, job: Job, cells: Sequence[Cell], metrics: Sequence[Metric], observer: Observer, provenance: dict[str, Any]
    ) -> list[Outcome]:
        train, test = self._cut(job)
        provenance["photographs"] = {
            role: sorted(set(windows.photographs)) if source.images.photographs else len(windows)
            for role, windows, source in (("train", train, job.train), ("test", test, job.test))
        }
        run = Pass(self._built(job), job.backbone, job.padding, job.precision, self._device)
        if self._trained and self._trained.job != job.training:
            self._trained = None  # let go of the last features before the next take their memory
        with self._timed("extraction"):
            note = run.prepare(train, test)
            if self._trained is None:
                of_train = extract(run, train, grid=job.grid, progress=observer.saw)
                self._trained = Trained(job.training, of_train)
            else:
                observer.saw(len(train))
            of_test = extract(run, test, grid=job.grid, progress=observer.saw)
        return [
            replace(outcome, reason=outcome.reason or note)
            for _, group in groupby(cells, key=lambda cell: (cell.readout.name, cell.taps, cell.seed))
            for outcome in self._attempt(list(group), metrics, self._trained, of_test, (train, test))
        ]

    def _attempt(
        self, cells: Sequence[Cell], metrics: Sequence[Metric], trained: Trained, test: Features, windows: Both
    ) -> list[Outcome]:
        """One readout of all its targets; a target or a readout that fails takes no other with it."""
        patterns, outcomes = {}, {}
        for cell in cells:
            try:
                patterns[cell] = pattern(cell.target)
            except Exception as error:
                outcomes[cell] = _struck([cell], error)[0]
        try:
            found = list(self._read(patterns, metrics, trained, test, windows)) if patterns else []
        except Exception as error:
            found = _struck(list(patterns), error)
        outcomes |= dict(zip(patterns, found, strict=True))
        return [outcomes[cell] for cell in cells]

    def _read(
        self,
        drawn: Mapping[Cell, torch.Tensor],
        metrics: Sequence[Metric],
        trained: Trained,
        test: Features,
        windows: Both,
    ) -> Iterator[Outcome]:
        """Fit one readout to the targets of all its cells, unless that is done, and score each."""
        cells = list(drawn)
        job, readout, seed = cells[0].job, cells[0].readout, cells[0].seed
        taps = tap_numbers(cells[0].taps, job.backbone.taps)
        patterns = torch.stack(list(drawn.values())).to(self._device)
        with self._timed("readout"):
            key = (readout, *taps, seed, *(cell.target for cell in cells))
            if key not in trained.readouts:
                trained.readouts[key] = readout.fit(
                    Training(
                        features=trained.features.of_taps(taps),
                        photographs=windows[0].photographs,
                        patterns=patterns,
                        image_size=job.image_size,
                        seed=seed or 0,
                    )
                )
            predictions = trained.readouts[key].predict(test.of_taps(taps))
        side = readout.grid(job.grid)
        expected = (len(windows[1]), len(cells), side, side)
        if not torch.is_tensor(predictions) or predictions.shape != expected:
            raise PosbenchError(f"readout {readout.name!r} must predict maps of shape {expected}")
        photographs = windows[1].photographs
        for i, cell in enumerate(cells):
            with self._timed("scoring"):
                scored_at = side if cell.score_at == "grid" else job.image_size
                target = resize(patterns[i], scored_at)
                maps = predictions[:, i] if scored_at == side else resize(predictions[:, i], scored_at)
                maps, degenerate = flatten_degenerate(maps, target)
                scores, problems = _scores(metrics, maps, target, photographs)
            yield Outcome(
                cell.identity(),
                "failed" if problems else "ok",
                "; ".join(problems),
                n_test_photos=len(set(photographs)),
                degenerate=degenerate,
                mean_map=predictions[:, i].mean(0).float().cpu().numpy().astype("<f4").tobytes(),
                scores=scores,
            )

    def _cut(self, job: Job) -> Both:
        """The windows of both roles; test windows are kept while their training images stay the same."""
        pieces = job.padding is not None and job.padding.border == "surround"
        common = (job.train, job.n_train, job.n_test, job.image_size, pieces)
        if common not in self._windows:
            self._windows.clear()
        with self._timed("images"):
            for_training, for_testing = deal(
                job.train.images, job.test.images, job.n_test, (job.train.halved, job.test.halved)
            )
            if common not in self._windows:
                self._windows[common] = windows(
                    job.train.images, for_training, TRAIN, job.n_train, job.image_size, pieces=pieces
                )
            key = (*common, job.test)
            if key not in self._windows:
                self._windows[key] = windows(
                    job.test.images, for_testing, TEST, job.n_test, job.image_size, pieces=pieces
                )
        return self._windows[common], self._windows[key]

    def _built(self, job: Job) -> nn.Module:
        key = (job.backbone.name, job.weights.label, job.weights.digest)
        if self._network is None or self._network[0] != key:
            self._network = None  # let go of the last one before the next takes its memory
            with self._timed("network"):
                self._network = key, build(job.backbone, job.weights).to(self._device)
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


def _scores(
    metrics: Sequence[Metric], maps: torch.Tensor, target: torch.Tensor, photographs: Sequence[str]
) -> tuple[list[StoredScore], list[str]]:
    """What the metrics say of one cell, and why some could not: one that fails takes no other with it."""
    scores, problems = [], []
    for metric in metrics:
        try:
            found = score(metric, maps, target, photographs)
        except Exception as error:
            problems.append(f"metric {metric.name}: {_reason(error)}")
            continue
        scores.append(StoredScore(metric.name, metric.version, found.value, found.lo, found.hi, found.by_photograph))
    return scores, problems


def _struck(cells: Sequence[Cell], error: Exception) -> list[Outcome]:
    """What becomes of cells in which a component raised.

    Components are other people's code and may raise anything: the run goes on, and the reason is kept.
    """
    status = "skipped" if isinstance(error, Inapplicable) else "failed"
    return [Outcome(cell.identity(), status, _reason(error)) for cell in cells]


def _reason(error: Exception) -> str:
    return one_line(error) if isinstance(error, PosbenchError) else f"{type(error).__name__}: {one_line(error)}"


def check_image_size(cells: Sequence[Cell]) -> None:
    """Find out before any job runs whether the networks can take images this small.

    Raises:
        UsageError: if one cannot, naming the smallest size that it can.
    """
    for backbone, size in {(cell.job.backbone, cell.job.image_size) for cell in cells}:
        enough = smallest_size(backbone, size)
        if enough is not None and enough > size:
            raise UsageError(
                f"image size {size} is too small for backbone {backbone.name!r}: give --image-size {enough}"
            )


def run(
    plan: Plan, cells: Sequence[Cell], store: Store, *, device: str, fail_fast: bool, observer: Observer
) -> Iterator[tuple[Job, JobResult]]:
    """Compute some cells of a plan, and store each job as it finishes.

    Args:
        fail_fast: stop after the first job that fails.

    Yields:
        Each computed job, once it is stored.

    Raises:
        UsageError: before any job runs, if a network cannot take images this small, or photographs are too few or no
            images; or if the store cannot be written.
    """
    check_image_size(cells)
    for train, test, n_test in {(cell.job.train, cell.job.test, cell.job.n_test) for cell in cells}:
        check_photographs(train.images, test.images, n_test, (train.halved, test.halved))
    engine = Engine(device)
    for job, members in plan.jobs(cells):
        observer.started(job)
        result = engine.compute(job, members, plan.metrics, observer)
        store.save(job, members, result.outcomes, result.provenance)
        observer.finished(job, result)
        yield job, result
        if fail_fast and result.status == "failed":
            return
