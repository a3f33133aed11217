"""The hooks that a plugin may implement. Each returns component records; importing registers nothing.

A plugin is a distribution whose metadata names a module under the entry-point group `posbench`:

    [project.entry-points.posbench]
    edge = "posbench_edge"
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from posbench.plugin.components import Backbone, Executor, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Control

PROJECT = "posbench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def posbench_backbones() -> Iterable[Backbone]:
    """Networks to probe.

    Example:
        ```python
        from posbench import Backbone, hookimpl

        def build():
            from torch import nn

            class TwoTaps(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
                    self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)

                def forward(self, x):
                    first = self.conv1(x).relu()
                    return [first, self.conv2(first).relu()]

            return TwoTaps()

        @hookimpl
        def posbench_backbones():
            return [Backbone(name="two-taps", summary="two convolutions", version="1", build=build, taps=2)]
        ```
    """


@hookspec(firstresult=True)
def posbench_find_backbone(name: str) -> Backbone | None:
    """Return a backbone by a name that `posbench_backbones` does not list, or None; for families too large to list.

    Called only if no listed backbone has the name, so it may be slow.

    Example:
        ```python
        from posbench import Backbone, hookimpl

        @hookimpl
        def posbench_find_backbone(name):
            if not name.startswith("plain-"):
                return None

            def build():
                from torch import nn

                class Plain(nn.Sequential):
                    def forward(self, x):
                        return [super().forward(x)]

                return Plain(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(int(name.removeprefix("plain-")))))

            return Backbone(name=name, summary="a stack of convolutions", version="1", build=build, taps=1)
        ```
    """


@hookspec
def posbench_paddings() -> Iterable[Padding]:
    """Padding strategies.

    Example:
        ```python
        import torch.nn.functional as F
        from posbench import Padding, hookimpl

        def pad(x, sides):
            left, right, top, bottom = sides
            return F.pad(x, (left, right, top, bottom), mode="replicate")

        @hookimpl
        def posbench_paddings():
            return [Padding(name="edge", summary="repeat the edge", version="1", pad=pad)]
        ```
    """


@hookspec
def posbench_targets() -> Iterable[Target]:
    """Patterns that readouts learn to predict.

    Example:
        ```python
        import numpy as np
        from posbench import Target, hookimpl

        def diagonal(size):
            axis = np.linspace(0, 1, size)
            return (axis[:, None] + axis[None, :]) / 2

        @hookimpl
        def posbench_targets():
            return [Target(name="diagonal", summary="from corner to corner", version="1", draw=diagonal)]
        ```
    """


@hookspec
def posbench_metrics() -> Iterable[Metric]:
    """Scores of a predicted map against its target; or, with `of_job`, numbers about a network's features.

    Example:
        ```python
        from posbench import Metric, Reading, hookimpl

        def rmse(prediction, target):
            return (prediction - target).square().mean(dim=(-2, -1)).sqrt()

        def dead(observation):
            of_image = (observation.test.taps[-1] == 0).double().mean(dim=(1, 2, 3)).tolist()
            shares = {}
            for photograph, share in zip(observation.photographs, of_image, strict=True):
                shares.setdefault(photograph, []).append(share)
            return [Reading({name: sum(own) / len(own) for name, own in shares.items()})]

        @hookimpl
        def posbench_metrics():
            return [
                Metric(name="rmse", summary="root mean square", version="1", score=rmse, higher_is_better=False),
                Metric(name="dead", summary="of a job: zeros in the last tap", version="1", of_job=dead),
            ]
        ```
    """


@hookspec
def posbench_images() -> Iterable[Images]:
    """Sources of images.

    Example:
        ```python
        import numpy as np
        from posbench import Images, hookimpl

        def draw(rng, size):
            return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

        @hookimpl
        def posbench_images():
            return [Images(name="static", summary="uniform noise", version="1", draw=draw)]
        ```
    """


@hookspec
def posbench_readouts() -> Iterable[Readout]:
    """Models that predict the targets from frozen features.

    Example:
        ```python
        from posbench import Readout, hookimpl

        class Constant:
            def __init__(self, targets):
                self.maps = targets.mean(dim=(-2, -1), keepdim=True).expand_as(targets)

            def predict(self, features):
                return self.maps.expand(len(features), *self.maps.shape)

        def fit(training):
            return Constant(training.targets(training.features.grid))

        @hookimpl
        def posbench_readouts():
            return [Readout(name="constant", summary="constant", version="1", fit=fit, grid=lambda side: side)]
        ```
    """


@hookspec
def posbench_controls() -> Iterable[Control]:
    """Cells that check other cells.

    Example:
        ```python
        from posbench import Check, Control, Features, hookimpl

        def without_means(features, patterns, side, testing):
            return Features(tuple(tap - tap.mean((1, 2), keepdim=True) for tap in features.taps), features.grid)

        def checks(cell, context):
            yield Check(name="without-means", features=without_means)
            if cell.n_train >= 2 * cell.n_test:
                yield Check(name="without-means-more-images", features=without_means, n_test=2 * cell.n_test)

        @hookimpl
        def posbench_controls():
            return [
                Control(
                    name="without-means",
                    summary="features less their mean over positions",
                    version="1",
                    checks=checks,
                    difference="what the means add",
                )
            ]
        ```
    """


@hookspec
def posbench_executors() -> Iterable[Executor]:
    """Backends that compute jobs.

    Example:
        ```python
        from posbench import Executor, Worker, groups, hookimpl

        class OneByOne:
            def __init__(self, options):
                self.options = options

            def results(self, tasks, observer, claim):
                worker = Worker(self.options.config)  # in a process of its own, or on another machine
                for group in groups(tasks):
                    yield from worker.results(claim(group), observer)

        @hookimpl
        def posbench_executors():
            return [Executor(name="one-by-one", summary="one job after the other", version="1", start=OneByOne)]
        ```
    """
