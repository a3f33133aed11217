"""Measure how much absolute position a network's features carry, and where it comes from.

This module is the public API: `run`, `backbone` and `images` for notebooks, and the records and `hookimpl` for plugins.
Each name is imported when it is first used, so `import posbench` loads neither torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test compares it with the table below
    from posbench.bench.engine import JobResult as JobResult
    from posbench.bench.engine import failed_result as failed_result
    from posbench.bench.plan import groups as groups
    from posbench.builtin.metrics.modes import fit_modes as fit_modes
    from posbench.builtin.readouts.penalty import fit_ridge_cv as fit_ridge_cv
    from posbench.builtin.readouts.ridge import fit_ridge as fit_ridge
    from posbench.builtin.readouts.sgd import fit_sgd as fit_sgd
    from posbench.core.errors import Inapplicable as Inapplicable
    from posbench.core.errors import MissingError as MissingError
    from posbench.core.errors import UsageError as UsageError
    from posbench.core.version import __version__ as __version__
    from posbench.data.dead_leaves import dead_leaves as dead_leaves
    from posbench.data.in_memory import images as images
    from posbench.network.user_module import backbone as backbone
    from posbench.plugin.components import Backbone as Backbone
    from posbench.plugin.components import Checkpoint as Checkpoint
    from posbench.plugin.components import Component as Component
    from posbench.plugin.components import Executor as Executor
    from posbench.plugin.components import Fitted as Fitted
    from posbench.plugin.components import Images as Images
    from posbench.plugin.components import Metric as Metric
    from posbench.plugin.components import Padding as Padding
    from posbench.plugin.components import Readout as Readout
    from posbench.plugin.components import Sides as Sides
    from posbench.plugin.components import Target as Target
    from posbench.plugin.hookspecs import hookimpl as hookimpl
    from posbench.plugin.observation import Observation as Observation
    from posbench.plugin.observation import Reading as Reading
    from posbench.plugin.operation import Operation as Operation
    from posbench.plugin.training import Training as Training
    from posbench.runner.api import run as run
    from posbench.runner.local import start_local as start_local
    from posbench.runner.ray import start_ray as start_ray
    from posbench.runner.results import Results as Results
    from posbench.runner.worker import Worker as Worker

#: The public names, and the module that defines each.
_MODULES = {
    "Backbone": "posbench.plugin.components",
    "Checkpoint": "posbench.plugin.components",
    "Component": "posbench.plugin.components",
    "Executor": "posbench.plugin.components",
    "Fitted": "posbench.plugin.components",
    "Images": "posbench.plugin.components",
    "Inapplicable": "posbench.core.errors",
    "JobResult": "posbench.bench.engine",
    "Metric": "posbench.plugin.components",
    "MissingError": "posbench.core.errors",
    "Observation": "posbench.plugin.observation",
    "Operation": "posbench.plugin.operation",
    "Padding": "posbench.plugin.components",
    "Reading": "posbench.plugin.observation",
    "Readout": "posbench.plugin.components",
    "Results": "posbench.runner.results",
    "Sides": "posbench.plugin.components",
    "Target": "posbench.plugin.components",
    "Training": "posbench.plugin.training",
    "UsageError": "posbench.core.errors",
    "Worker": "posbench.runner.worker",
    "__version__": "posbench.core.version",
    "backbone": "posbench.network.user_module",
    "dead_leaves": "posbench.data.dead_leaves",
    "failed_result": "posbench.bench.engine",
    "fit_modes": "posbench.builtin.metrics.modes",
    "fit_ridge": "posbench.builtin.readouts.ridge",
    "fit_ridge_cv": "posbench.builtin.readouts.penalty",
    "fit_sgd": "posbench.builtin.readouts.sgd",
    "groups": "posbench.bench.plan",
    "hookimpl": "posbench.plugin.hookspecs",
    "images": "posbench.data.in_memory",
    "run": "posbench.runner.api",
    "start_local": "posbench.runner.local",
    "start_ray": "posbench.runner.ray",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
