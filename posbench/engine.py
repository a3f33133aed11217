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
import torch.nn.functional as F
from torch import nn

from posbench import __version__
from posbench.components import Metric, Target
from posbench.errors import Inapplicable, MissingError, PosbenchError, UsageError, one_line
from posbench.features import Features, extract
from posbench.networks import build, smallest_size
from posbench.passes import Pass
from posbench.plan import Cell, Job, Plan, tap_numbers
from posbench.scoring import flatten_degenerate, score
from posbench.store import Outcome, Store, StoredScore
from posbench.windows import Windows, check_photographs, cut

#: Targets are drawn at this side, as the paper's pictures are, and resized to the readout's grid.
DRAWN_AT = 256


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


class Engine:
    """Computes jobs on one device, keeping between jobs what the next one is likely to share."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._network: tuple[tuple[str, str, str], nn.Module] | None = None
        self._windows: tuple[tuple[object, ...], tuple[Windows, Windows]] | None = None
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
        with self._timed("extraction"):
            note = run.prepare(train, test)
            of_train, of_test = (
                extract(run, windows, grid=job.grid, progress=observer.saw) for windows in (train, test)
            )
        return [
            replace(outcome, reason=outcome.reason or note)
            for _, group in groupby(cells, key=lambda cell: (cell.readout.name, cell.taps, cell.seed))
            for outcome in self._attempt(list(group), metrics, of_train, of_test, test)
        ]

    def _attempt(
        self, cells: Sequence[Cell], metrics: Sequence[Metric], train: Features, test: Features, windows: Windows
    ) -> list[Outcome]:
        """One readout of all its targets; a target or a readout that fails takes no other with it."""
        targets, outcomes = {}, {}
        for cell in cells:
            try:
                targets[cell] = draw(cell.target, cell.readout.grid(cell.job.grid))
            except Exception as error:
                outcomes[cell] = _struck([cell], error)[0]
        try:
            found = list(self._read(targets, metrics, train, test, windows)) if targets else []
        except Exception as error:
            found = _struck(list(targets), error)
        outcomes |= dict(zip(targets, found, strict=True))
        return [outcomes[cell] for cell in cells]

    def _read(
        self,
        drawn: Mapping[Cell, torch.Tensor],
        metrics: Sequence[Metric],
        train: Features,
        test: Features,
        windows: Windows,
    ) -> Iterator[Outcome]:
        """Fit one readout to the targets of all its cells, and score each."""
        cells = list(drawn)
        job, readout = cells[0].job, cells[0].readout
        taps = tap_numbers(cells[0].taps, job.backbone.taps)
        targets = torch.stack(list(drawn.values())).to(self._device)
        with self._timed("readout"):
            fitted = readout.fit(train.of_taps(taps), targets, cells[0].seed or 0)
            predictions = fitted.predict(test.of_taps(taps))
        expected = (len(windows), *targets.shape)
        if not torch.is_tensor(predictions) or predictions.shape != expected:
            raise PosbenchError(f"readout {readout.name!r} must predict maps of shape {expected}")
        for i, cell in enumerate(cells):
            with self._timed("scoring"):
                maps, target = predictions[:, i], targets[i]
                if cell.score_at == "image":
                    maps = resize(maps, job.image_size)
                    target = draw(cell.target, job.image_size).to(self._device)
                maps, degenerate = flatten_degenerate(maps, target)
                scores, problems = _scores(metrics, maps, target, windows.photographs)
            yield Outcome(
                cell.identity(),
                "failed" if problems else "ok",
                "; ".join(problems),
                n_test_photos=len(set(windows.photographs)),
                degenerate=degenerate,
                mean_map=predictions[:, i].mean(0).float().cpu().numpy().astype("<f4").tobytes(),
                scores=scores,
            )

    def _cut(self, job: Job) -> tuple[Windows, Windows]:
        pieces = job.padding is not None and job.padding.border == "surround"
        key = (job.train, job.test, job.n_train, job.n_test, job.image_size, pieces)
        if self._windows is None or self._windows[0] != key:
            with self._timed("images"):
                counts = (job.n_train, job.n_test, job.image_size)
                self._windows = key, cut(job.train.images, job.test.images, *counts, pieces=pieces)
        return self._windows[1]

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


def draw(target: Target, side: int) -> torch.Tensor:
    """A target at the side of the maps that it is held against, float32 [side, side].

    It is drawn at 256×256, as the paper's pictures are, and resized.

    Raises:
        PosbenchError: if the target draws something else than a finite [256, 256] array.
    """
    drawn = torch.as_tensor(target.draw(DRAWN_AT)).float()
    if drawn.shape != (DRAWN_AT, DRAWN_AT) or not bool(drawn.isfinite().all()):
        raise PosbenchError(f"target {target.name!r} must draw a finite array of shape {(DRAWN_AT, DRAWN_AT)}")
    return resize(drawn[None], side)[0]


def resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps [n, height, width] resized to [n, side, side], bilinear, not corner on corner.

    Source: the authors' code for Islam, Jia and Bruce (ICLR 2020) resizes targets and predictions so.
    """
    return F.interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]


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
        check_photographs(train.images, test.images, n_test)
    engine = Engine(device)
    for job, members in plan.jobs(cells):
        observer.started(job)
        result = engine.compute(job, members, plan.metrics, observer)
        store.save(job, members, result.outcomes, result.provenance)
        observer.finished(job, result)
        yield job, result
        if fail_fast and result.status == "failed":
            return
