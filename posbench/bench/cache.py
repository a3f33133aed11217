"""What jobs of a run share: windows, the network, its features of them, and the readouts fitted on these.

A job asks for its parts here. What an earlier one made is handed out again, and what none to come needs is let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
from posbench.plugin.sandbox import isolated_state, sandboxed, write_count

#: Names a set of windows, by the photographs that they are cut from and how; or a network's features of them.
Key = tuple[object, ...]


class Stopwatch:
    """How long each stage of a job took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A context whose time is added to a stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class JobCache:
    """The parts of jobs on one device, made when they are first asked for.

    Args:
        device: cpu or cuda.
        stopwatch: told how long making them takes: images, network.
    """

    def __init__(self, device: str, stopwatch: Stopwatch) -> None:
        self._device, self._stopwatch = device, stopwatch
        self._network: tuple[Key, nn.Module] | None = None
        self._dealt: dict[Key, tuple[list[Photograph], list[Photograph]]] = {}
        self._windows: dict[Key, Crops] = {}
        self._features: dict[Key, Features] = {}
        self._readouts: dict[Key, dict[Key, list[Fitted]]] = {}
        self._last_use: dict[Key, int] = {}
        self._places: dict[str, int] = {}

    def expect(self, jobs: Sequence[Job]) -> None:
        """Say which jobs may come next, in their order, each once; nothing is kept that none of them shares."""
        self._last_use = {key: number for number, job in enumerate(jobs) for key in self._keys(job)}
        self._places = {job.id: number for number, job in enumerate(jobs)}

    def discard(self, job: Job) -> None:
        """Forget what no job after this one shares."""
        place = self._places.get(job.id, len(self._places))
        for kept in (self._windows, self._features):
            for key in [key for key in kept if self._last_use.get(key, -1) <= place]:
                del kept[key]
        for key in [key for key in self._readouts if key[:-1] not in self._features]:
            del self._readouts[key]

    def discard_features(self) -> None:
        """And the readouts fitted on them."""
        self._features.clear()
        self._readouts.clear()

    def windows(self, job: Job, role: int) -> Crops:
        """The images of a role, TRAIN or TEST."""
        key, source = self._key(job, role), (job.train, job.test)[role]
        if key not in self._windows:
            with self._stopwatch.timed("images"):
                cut = load_crops(
                    source.images,
                    self._photographs(job, role),
                    role,
                    (job.n_train, job.n_test)[role],
                    _side(job, role),
                    surrounded=_surrounded(job),
                )
                self._windows[key] = cut.rotated() if source.turned else cut
        return self._windows[key]

    def network(self, job: Job) -> nn.Module:
        """The frozen network; one at a time is kept.

        Raises:
            ComponentError: if it cannot be built.
        """
        key = (job.backbone.name, job.weights.label, job.weights.digest)
        if self._network is None or self._network[0] != key:
            self._network = None  # let go of the last one before the next takes its memory
            release_freed_memory()
            with self._stopwatch.timed("network"):
                network = build(job.backbone, job.weights).to(self._device)
                with sandboxed(job.backbone):
                    fold_norms(network, torch.zeros(1, 3, job.image_size, job.image_size, device=self._device))
                self._network = key, network
        return self._network[1]

    def features(self, run: ForwardPass, job: Job, role: int, progress: Callable[[int], None]) -> Features:
        """What the network makes of the images of a role; `progress` is told of each as it has passed."""
        key, cut = self._key(job, role, features=True), self.windows(job, role)
        if key in self._features:
            progress(len(cut))
        else:
            grid = (job.grid, job.test_grid)[role]
            # The same whichever job comes first to this network under its padding.
            with isolated_state(f"{run.backbone.name} {job.weights.label} {run.padding and run.padding.name}"):
                self._features[key] = extract(run, cut, grid=grid, progress=progress)
        return self._features[key]

    def readouts(self, job: Job) -> dict[Key, list[Fitted]]:
        """Those fitted on the features of its training images, one a fold, by what they were fitted for."""
        return self._readouts.setdefault((*self._key(job, TRAIN, features=True), job.train.crossed), {})

    def _photographs(self, job: Job, role: int) -> list[Photograph]:
        dealing = (job.train, job.test, job.n_test)
        if dealing not in self._dealt:
            halved = (job.train.halved, job.test.halved)
            self._dealt[dealing] = split_photographs(
                job.train.images, job.test.images, job.n_test, halved, cross_fitted=job.train.crossed
            )
        return self._dealt[dealing][role]

    def _key(self, job: Job, role: int, *, features: bool = False) -> Key:
        """Names the windows of a role, or the network's features of them."""
        source = (job.train, job.test)[role]
        windows = (
            *(source.images, source.turned, role, (job.n_train, job.n_test)[role], _side(job, role)),
            *(photograph.digest for photograph in self._photographs(job, role)),
            _surrounded(job),
        )
        return (job.backbone, job.weights, job.padding, job.precision, windows) if features else windows

    def _keys(self, job: Job) -> list[Key]:
        return [self._key(job, role, features=features) for role in (TRAIN, TEST) for features in (False, True)]


def _side(job: Job, role: int) -> int:
    """Of the images of a role, in pixels."""
    return job.test_size or job.image_size if role == TEST else job.image_size


def _surrounded(job: Job) -> bool:
    """Whether its images are seen within more of their photographs."""
    return job.padding is not None and job.padding.border == "surround"


class FeaturesModifiedError(ComponentError):
    """A component wrote into features, which others share: they have to be made again."""


@contextmanager
def features_unmodified(component: Component, *features: Features) -> Iterator[None]:
    """A context in which a component is given features that it must leave as they are.

    torch counts how often each is written to; what is written past it shows in the first image, which is compared.

    Raises:
        SpoiltError: if it did not.
    """
    kept = [(tap, write_count(tap), tap[:1].clone()) for one in features for tap in one.taps]
    try:
        yield
    finally:
        if any(write_count(tap) != writes or not torch.equal(tap[:1], first) for tap, writes, first in kept):
            raise FeaturesModifiedError(f"{component.title} wrote into the features that it was given")
