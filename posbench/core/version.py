"""The version of the installed distribution."""

from importlib.metadata import version

#: The name on the package index; the import package and the command are called `posbench`.
DISTRIBUTION = "position-bench"
__version__ = version(DISTRIBUTION)
