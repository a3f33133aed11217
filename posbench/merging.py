"""Several stores, or what was published of them, into one: of the shards of a run, of machines, of colleagues."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from posbench.errors import UsageError
from posbench.publication import Publication, is_published, read, restore
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

    Args:
        stores: stores and published folders; a file of a published folder stands for the folder.

    Raises:
        UsageError: if a store cannot be read, two hold different results for one cell, or the output exists.
    """
    if output.exists():
        raise UsageError(f"{str(output)!r} exists: name another file with --output")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r}: make it first")
    published = {path: read(path) for path in stores if is_published(path)}
    for path in stores:
        if path in published:
            continue
        if path.suffix.lower() == ".csv" or path.is_dir():
            raise UsageError(
                f"{str(path)!r} does not say what its cells are made of: give the store, or the published folder"
            )
        with Store(path, must_exist=True) as store:  # one of an older schema is now up to date
            store.check()
    try:
        return _merged(stores, published, output)
    except OSError as error:
        raise UsageError(f"{str(output)!r} cannot be written ({error.strerror}): name another with --output") from error


def _merged(stores: Sequence[Path], published: Mapping[Path, Publication], output: Path) -> Merged:
    """The stores were looked at; the new one takes its name once it is whole."""
    cells = twice = 0
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".posbench-") as unfinished:
        made = Path(unfinished) / "merged.db"
        with Store(made) as new:
            for number, path in enumerate(stores):
                held = path
                if path in published:
                    held = Path(unfinished) / f"{number}.db"
                    restore(published[path], held)
                added, both = new.absorb(held)
                cells, twice = cells + added, twice + both
        made.rename(output)
    return Merged(cells, twice)
