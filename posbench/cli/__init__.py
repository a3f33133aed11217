"""The command line: reads options, calls the rooms behind, prints. Imports no torch until something is computed."""

# Commands stand in the help in the order in which these are imported.
from posbench.cli import running

# isort: split
from posbench.cli import stored

# isort: split
from posbench.cli import reporting

# isort: split
from posbench.cli import available
from posbench.cli.app import main

__all__ = ["available", "main", "reporting", "running", "stored"]
