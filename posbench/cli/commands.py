"""All commands, in the order in which they stand in the help: that in which these are imported."""

from posbench.cli import running

# isort: split
from posbench.cli import stored

# isort: split
from posbench.cli import reporting

# isort: split
from posbench.cli import available
from posbench.cli.app import app, call

__all__ = ["app", "available", "call", "reporting", "running", "stored"]
