"""Public names of posbench and the module that defines each; `__init__.py` loads them from here on first use."""

from .bench.engine import JobResult as JobResult
from .core.errors import Inapplicable as Inapplicable, MissingError as MissingError, UsageError as UsageError
from .core.version import __version__ as __version__
from .data.dead_leaves import dead_leaves as dead_leaves
from .data.in_memory import images as images
from .network.user_module import backbone as backbone
from .plugin.components import (
    Backbone as Backbone,
    Checkpoint as Checkpoint,
    Component as Component,
    Executor as Executor,
    Fitted as Fitted,
    Images as Images,
    Metric as Metric,
    Padding as Padding,
    Readout as Readout,
    Target as Target,
)
from .plugin.control import (
    Check as Check,
    CheckedCell as CheckedCell,
    Control as Control,
    ControlContext as ControlContext,
)
from .plugin.execution import (
    Claim as Claim,
    Observer as Observer,
    Pool as Pool,
    RunOptions as RunOptions,
    TaskIds as TaskIds,
    groups as groups,
)
from .plugin.features import Features as Features
from .plugin.hookspecs import hookimpl as hookimpl
from .plugin.observation import Observation as Observation, Reading as Reading, Split as Split
from .plugin.operation import Operation as Operation, Sides as Sides
from .plugin.training import Training as Training
from .runner.api import run as run
from .runner.results import Results as Results
from .runner.worker import Worker as Worker
