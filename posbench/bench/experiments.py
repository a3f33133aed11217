"""The experiments that ship with posbench: configurations to run by name, to print, copy and change."""

from __future__ import annotations

from pathlib import Path

from posbench.core.errors import unknown

#: Holds NAME.yaml an experiment, and PAPER.csv with the numbers that a paper prints.
FOLDER = Path(__file__).parents[1] / "experiments"


def names() -> list[str]:
    """All experiments, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path(name: str) -> Path:
    """The configuration file of an experiment.

    Raises:
        UsageError: if there is none of this name.
    """
    if name not in names():
        raise unknown("experiment", name, names())
    return FOLDER / f"{name}.yaml"


def summary(name: str) -> str:
    """What an experiment is about: the first line of its file."""
    return path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
