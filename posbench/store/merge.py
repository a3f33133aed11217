"""Merge stores and published folders: the shards of a run, results of several machines or colleagues."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posbench.core.errors import UsageError
from posbench.store.bundle import is_published, read
from posbench.store.store import Store


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        cells: the number of cells in the new store.
        duplicates: how often a further store had a cell that was already there, with the same result.
        repaired: how often a cell had failed in one of two stores alone.
    """

    cells: int
    duplicates: int = 0
    repaired: int = 0


def merge(stores: Sequence[Path], output: Path) -> Merged:
    """Write one store with the contents of several; it gets its name once it is complete.

    Args:
        stores: stores and published folders; a file of a published folder counts as the folder.

    Raises:
        UsageError: if a store cannot be read, two hold different results for one cell, or the output exists.
    """
    if output.exists():
        raise UsageError(f"{str(output)!r} exists: name another file with --output")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r}: make it first")
    duplicates = repaired = 0
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".posbench-") as unfinished:
            merged = Path(unfinished) / "merged.db"
            with Store(merged) as new:
                for number, path in enumerate(stores):
                    scratch = Path(unfinished, str(number))
                    scratch.mkdir()
                    both, failed = _merge_into(new, path, scratch)
                    duplicates, repaired = duplicates + both - failed, repaired + failed
                cells = new.count()
            merged.rename(output)
    except OSError as error:
        raise UsageError(f"{str(output)!r} cannot be written ({error.strerror}): name another with --output") from error
    return Merged(cells, duplicates, repaired)


def _merge_into(new: Store, path: Path, scratch: Path) -> tuple[int, int]:
    """Merge a store or a published folder into a store; return what `Store.merge_from` does."""
    if is_published(path):
        published = read(path)
        with Store(scratch / "published.db") as store:
            store.restore(published.runs, published.records, published.measurements)
        return new.merge_from(scratch / "published.db")
    if path.suffix.lower() == ".csv" or path.is_dir():
        raise UsageError(
            f"{str(path)!r} does not say what its cells are made of: give the store, or the published folder"
        )
    with Store(path, must_exist=True) as store:
        store.check()
        store.validate()
        return new.merge_from(store.file(scratch))
