"""The hooks that a plugin may implement. Each returns component records; docs/plugins.md has an example of each.

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
    """Networks to probe."""


@hookspec(firstresult=True)
def posbench_find_backbone(name: str) -> Backbone | None:
    """Return a backbone by a name that `posbench_backbones` does not list, or None; for families too large to list.

    Called only if no listed backbone has the name, so it may be slow.
    """


@hookspec
def posbench_paddings() -> Iterable[Padding]:
    """Padding strategies."""


@hookspec
def posbench_targets() -> Iterable[Target]:
    """Patterns that readouts learn to predict."""


@hookspec
def posbench_metrics() -> Iterable[Metric]:
    """Scores of a predicted map against its target; or, with `of_job`, numbers about a network's features."""


@hookspec
def posbench_images() -> Iterable[Images]:
    """Sources of images."""


@hookspec
def posbench_readouts() -> Iterable[Readout]:
    """Models that predict the targets from frozen features."""


@hookspec
def posbench_controls() -> Iterable[Control]:
    """Cells that check other cells."""


@hookspec
def posbench_executors() -> Iterable[Executor]:
    """Backends that compute jobs."""
