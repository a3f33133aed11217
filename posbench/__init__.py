"""posbench measures how much absolute position a network's features carry, and where it comes from.

This module offers what the author of a plugin imports, and what a notebook does: `run`, `backbone` and `images`. It
imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from posbench.core.errors import Inapplicable, MissingError, UsageError
from posbench.plugin.components import (
    Backbone,
    Checkpoint,
    Component,
    Executor,
    Fitted,
    Images,
    Metric,
    Padding,
    Readout,
    Sides,
    Target,
)
from posbench.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from posbench.bench.engine import JobResult
    from posbench.builtin.metrics.modes import fit_modes
    from posbench.builtin.metrics.ppp import patterns as ppp_patterns
    from posbench.builtin.readouts.penalty import fit_ridge_cv
    from posbench.builtin.readouts.ridge import fit_ridge
    from posbench.builtin.readouts.sgd import fit_sgd
    from posbench.data.dead_leaves import dead_leaves
    from posbench.data.in_memory import images
    from posbench.network.user_module import backbone
    from posbench.plugin.execution import Observer, Pool, RunOptions, TaskIds, groups
    from posbench.plugin.features import Features
    from posbench.plugin.observation import Observation, Reading
    from posbench.plugin.operation import Operation
    from posbench.plugin.training import Training
    from posbench.runner.api import run
    from posbench.runner.results import Results
    from posbench.runner.worker import Worker

    __version__: str

__all__ = [
    "Backbone",
    "Checkpoint",
    "Component",
    "Executor",
    "Features",
    "Fitted",
    "Images",
    "Inapplicable",
    "JobResult",
    "Metric",
    "MissingError",
    "Observation",
    "Observer",
    "Operation",
    "Padding",
    "Pool",
    "Reading",
    "Readout",
    "Results",
    "RunOptions",
    "Sides",
    "Target",
    "TaskIds",
    "Training",
    "UsageError",
    "Worker",
    "__version__",
    "backbone",
    "dead_leaves",
    "fit_modes",
    "fit_ridge",
    "fit_ridge_cv",
    "fit_sgd",
    "groups",
    "hookimpl",
    "images",
    "ppp_patterns",
    "run",
]


_LAZY = {
    "Features": "posbench.plugin.features",
    "JobResult": "posbench.bench.engine",
    "Observation": "posbench.plugin.observation",
    "Observer": "posbench.plugin.execution",
    "Operation": "posbench.plugin.operation",
    "Pool": "posbench.plugin.execution",
    "Reading": "posbench.plugin.observation",
    "Results": "posbench.runner.results",
    "RunOptions": "posbench.plugin.execution",
    "TaskIds": "posbench.plugin.execution",
    "Training": "posbench.plugin.training",
    "Worker": "posbench.runner.worker",
    "backbone": "posbench.network.user_module",
    "dead_leaves": "posbench.data.dead_leaves",
    "fit_modes": "posbench.builtin.metrics.modes",
    "fit_ridge": "posbench.builtin.readouts.ridge",
    "fit_ridge_cv": "posbench.builtin.readouts.penalty",
    "fit_sgd": "posbench.builtin.readouts.sgd",
    "groups": "posbench.plugin.execution",
    "images": "posbench.data.in_memory",
    "ppp_patterns": "posbench.builtin.metrics.ppp:patterns",
    "run": "posbench.runner.api",
}


def __getattr__(name: str) -> Any:
    # All of this costs time to import, most of it torch or NumPy: it is fetched when first asked for.
    if name == "__version__":
        return import_module("posbench.core.version").__version__
    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(module), attribute or name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
