"""posbench measures how much absolute position a network's features carry, and where it comes from.

This module offers what the author of a plugin imports, and what a notebook does: `run`, `backbone` and `images`. It
imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from posbench.components import (
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
from posbench.errors import Inapplicable, MissingError, UsageError
from posbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from posbench.clusters import start_ray
    from posbench.engine import JobResult, struck
    from posbench.leaves import dead_leaves
    from posbench.modes import fit_modes
    from posbench.modules import backbone
    from posbench.notebook import run
    from posbench.observation import Observation, Reading
    from posbench.operations import Operation
    from posbench.penalty import fit_ridge_cv
    from posbench.pixels import images
    from posbench.plan import groups
    from posbench.ppp import patterns as ppp_patterns
    from posbench.readout import fit_ridge
    from posbench.results import Results
    from posbench.sgd import fit_sgd
    from posbench.training import Training
    from posbench.workers import start_local
    from posbench.working import Worker

    __version__: str

__all__ = [
    "Backbone",
    "Checkpoint",
    "Component",
    "Executor",
    "Fitted",
    "Images",
    "Inapplicable",
    "JobResult",
    "Metric",
    "MissingError",
    "Observation",
    "Operation",
    "Padding",
    "Reading",
    "Readout",
    "Results",
    "Sides",
    "Target",
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
    "start_local",
    "start_ray",
    "struck",
]


_LAZY = {
    "JobResult": "posbench.engine",
    "Observation": "posbench.observation",
    "Operation": "posbench.operations",
    "Reading": "posbench.observation",
    "Results": "posbench.results",
    "Training": "posbench.training",
    "Worker": "posbench.working",
    "backbone": "posbench.modules",
    "dead_leaves": "posbench.leaves",
    "fit_modes": "posbench.modes",
    "fit_ridge": "posbench.readout",
    "fit_ridge_cv": "posbench.penalty",
    "fit_sgd": "posbench.sgd",
    "groups": "posbench.plan",
    "images": "posbench.pixels",
    "ppp_patterns": "posbench.ppp:patterns",
    "run": "posbench.notebook",
    "start_local": "posbench.workers",
    "start_ray": "posbench.clusters",
    "struck": "posbench.engine",
}


def __getattr__(name: str) -> Any:
    # All of this costs time to import, most of it torch or NumPy: it is fetched when first asked for.
    if name == "__version__":
        return import_module("importlib.metadata").version("posbench")
    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(module), attribute or name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
