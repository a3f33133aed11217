"""The experiments that ship with posbench: YAML configurations to run by name.

Apart from `posbench.bench.config`, so that listing them does not import pydantic.
"""

from __future__ import annotations

from pathlib import Path

from posbench.core.errors import unknown

#: Holds a NAME.yaml for each experiment, and a PAPER.csv with the numbers that a paper prints.
FOLDER = Path(__file__).parents[1] / "experiments"


def names() -> list[str]:
    """Return the names of all experiments, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path(name: str) -> Path:
    """Return the configuration file of an experiment; raise UsageError if no experiment has this name."""
    if name not in names():
        raise unknown("experiment", name, names())
    return FOLDER / f"{name}.yaml"


def summary(name: str) -> str:
    """Return the summary of an experiment: the first line of its file."""
    return path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
