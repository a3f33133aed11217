"""Keeps what jobs of a run share: crops, the network, its features, and the readouts fitted on these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import nn

from posbench.bench.plan import Job
from posbench.core.errors import ComponentError
from posbench.core.malloc import release_freed_memory
from posbench.data.crops import TEST, TRAIN, Crops, load_crops, split_photographs
from posbench.data.photographs import Photograph
from posbench.network.build import build
from posbench.network.extract import extract
from posbench.network.fold_batchnorm import fold_norms
from posbench.network.forward import ForwardPass
from posbench.plugin.components import Component, Fitted
from posbench.plugin.features import Features
from posbench.plugin.observation import Split
from posbench.plugin.sandbox import isolated_state, sandboxed, write_count

#: Identifies crops by their photographs and how these are cropped, or features by the network and its crops.
Key = tuple[object, ...]


@dataclass
class Stopwatch:
    """Measures how long each stage of a job takes, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent in the context to a stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass
class JobFeatures:
    """The features of one job, its crops of training and of testing, and the readouts fitted on the features.

    Attributes:
        folds: the numbers of the training images that each readout is fitted on, and of the test images that it
            predicts maps for: all of them, or those of a fold of cross-fitting.
        readouts: those already fitted on these training images, one a fold, by what they were fitted for.
    """

    train: Features
    test: Features
    crops: tuple[Crops, Crops]
    folds: Sequence[tuple[Sequence[int], Sequence[int]]]
    readouts: dict[Key, list[Fitted]]

    def splits(self) -> list[Split]:
        """Return training and test features of different photographs, one split a fold."""
        names = self.crops[1].photographs
        return [
            Split(self.train.of_images(fitted), self.test.of_images(tested), [names[i] for i in tested])
            for fitted, tested in self.folds
            if tested
        ]

    @property
    def mutual(self) -> bool:
        """True if a photograph that one readout is tested on has trained another."""
        train, test = (set(crops.photographs) for crops in self.crops)
        return len(self.folds) > 1 and bool(train & test)


class JobCache:
    """Crops, networks, features and readouts of jobs on one device, made when a job first needs them.

    The stopwatch measures how long images and networks take.
    """

    def __init__(self, device: str, stopwatch: Stopwatch) -> None:
        self._device, self._stopwatch = device, stopwatch
        self._network: tuple[Key, nn.Module] | None = None
        self._split: dict[Key, tuple[list[Photograph], list[Photograph]]] = {}
        self._crops: dict[Key, Crops] = {}
        self._features: dict[Key, Features] = {}
        self._readouts: dict[Key, dict[Key, list[Fitted]]] = {}
        self._last_use: dict[Key, int] = {}
        self._places: dict[str, int] = {}

    def expect(self, jobs: Sequence[Job]) -> None:
        """Announce the jobs that may follow, in order, each once; only what several of them share is kept."""
        self._last_use = {
            self._key(job, role, features=features): number
            for number, job in enumerate(jobs)
            for role, features in product((TRAIN, TEST), (False, True))
        }
        self._places = {job.id: number for number, job in enumerate(jobs)}

    def discard(self, job: Job) -> None:
        """Discard what no job after this one shares."""
        place = self._places.get(job.id, len(self._places))
        for kept in (self._crops, self._features):
            for key in [key for key in kept if self._last_use.get(key, -1) <= place]:
                del kept[key]
        for key in [key for key in self._readouts if key[:-1] not in self._features]:
            del self._readouts[key]

    def discard_features(self) -> None:
        """Discard all features and the readouts fitted on them."""
        self._features.clear()
        self._readouts.clear()

    def crops(self, job: Job, role: int) -> Crops:
        """Return the images of a role, TRAIN or TEST."""
        key, source = self._key(job, role), (job.train, job.test)[role]
        if key not in self._crops:
            with self._stopwatch.timed("images"):
                count, side = (job.n_train, job.n_test)[role], (job.image_size, job.test_image_size)[role]
                photographs = self._photographs(job, role)
                crops = load_crops(source.images, photographs, role, count, side, surrounded=_surrounded(job))
                self._crops[key] = crops.rotated() if source.rotated else crops
        return self._crops[key]

    def network(self, job: Job) -> nn.Module:
        """Return the frozen network, the only one that is kept. Raises ComponentError if it cannot be built."""
        key = (job.backbone.name, job.weights.label, job.weights.digest)
        if self._network is None or self._network[0] != key:
            self._network = None  # free the last one before the next takes its memory
            release_freed_memory()
            with self._stopwatch.timed("network"):
                network = build(job.backbone, job.weights).to(self._device)
                with sandboxed(job.backbone):
                    fold_norms(network, torch.zeros(1, 3, job.image_size, job.image_size, device=self._device))
                self._network = key, network
        return self._network[1]

    def features(self, run: ForwardPass, job: Job, role: int, progress: Callable[[int], None]) -> Features:
        """Return the network's features of the images of a role; `progress` receives how many more have passed."""
        key, crops = self._key(job, role, features=True), self.crops(job, role)
        if key in self._features:
            progress(len(crops))
        else:
            grid = (job.grid, job.test_grid)[role]
            # Seeded, so that features do not depend on which job comes first to this network under its padding.
            with isolated_state(f"{run.backbone.name} {job.weights.label} {run.padding and run.padding.name}"):
                self._features[key] = extract(run, crops, grid=grid, progress=progress)
        return self._features[key]

    def readouts(self, job: Job) -> dict[Key, list[Fitted]]:
        """Return the readouts fitted on a job's training features, one a fold, by what they were fitted for."""
        return self._readouts.setdefault((*self._key(job, TRAIN, features=True), job.train.cross_fitted), {})

    def _photographs(self, job: Job, role: int) -> list[Photograph]:
        key = (job.train, job.test, job.n_test)
        if key not in self._split:
            train, test = job.train, job.test
            halved = (train.halved, test.halved)
            self._split[key] = split_photographs(
                train.images, test.images, job.n_test, halved, cross_fitted=train.cross_fitted
            )
        return self._split[key][role]

    def _key(self, job: Job, role: int, *, features: bool = False) -> Key:
        source = (job.train, job.test)[role]
        count, side = (job.n_train, job.n_test)[role], (job.image_size, job.test_image_size)[role]
        digests = (photograph.digest for photograph in self._photographs(job, role))
        crops = (source.images, source.rotated, role, count, side, *digests, _surrounded(job))
        return (job.backbone, job.weights, job.padding, job.precision, crops) if features else crops


def _surrounded(job: Job) -> bool:
    return job.padding is not None and job.padding.border == "surround"


class FeaturesModifiedError(ComponentError):
    """A component wrote into features that others share: they have to be extracted again."""


@contextmanager
def features_unmodified(component: Component, *features: Features) -> Iterator[None]:
    """Raise FeaturesModifiedError if a component modifies some features while it is called.

    torch counts how often each tensor is written to. Writes that it does not count show in the first image.
    """
    before = [(tap, write_count(tap), tap[:1].clone()) for part in features for tap in part.taps]
    try:
        yield
    finally:
        if any(write_count(tap) != writes or not torch.equal(tap[:1], first) for tap, writes, first in before):
            raise FeaturesModifiedError(f"{component.title} wrote into the features that it was given")
