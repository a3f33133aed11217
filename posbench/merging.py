"""Several stores into one: what the shards of a run found, or machines, or colleagues."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posbench.errors import UsageError
from posbench.store import Store


@dataclass(frozen=True)
class Merged:
    """What a merge made.

    Attributes:
        cells: that the new store holds.
        twice: how often a cell was found in a further store.
    """

    cells: int
    twice: int


def merge(stores: Sequence[Path], output: Path) -> Merged:
    """Write one store that holds what several hold.

    Raises:
        UsageError: if a store cannot be read, two hold different results for one cell, or the output exists.
    """
    if output.exists():
        raise UsageError(f"{str(output)!r} exists: name another file with --output")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r}: make it first")
    for path in stores:
        with Store(path, must_exist=True) as store:  # one of an older schema is now up to date
            store.check()
    try:
        return _merged(stores, output)
    except OSError as error:
        raise UsageError(f"{str(output)!r} cannot be written ({error.strerror}): name another with --output") from error


def _merged(stores: Sequence[Path], output: Path) -> Merged:
    """The stores were looked at; the new one takes its name once it is whole."""
    cells = twice = 0
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".posbench-") as unfinished:
        made = Path(unfinished) / "merged.db"
        with Store(made) as new:
            for path in stores:
                added, both = new.absorb(path)
                cells, twice = cells + added, twice + both
        made.rename(output)
    return Merged(cells, twice)
