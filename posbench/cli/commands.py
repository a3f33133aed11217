"""All commands, in the order in which they stand in the help: that in which these are imported."""

from posbench.cli import run

# isort: split
from posbench.cli import results

# isort: split
from posbench.cli import share

# isort: split
from posbench.cli import components
from posbench.cli.app import app, call

__all__ = ["app", "call", "components", "results", "run", "share"]
