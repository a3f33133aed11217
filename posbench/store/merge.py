"""Several stores, or what was published of them, into one: of the shards of a run, of machines, of colleagues."""

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
    """What a merge made.

    Attributes:
        cells: that the new store holds.
        alike: how often a cell was found in a further store, and was the same there.
        mended: how often it had failed in one of the two alone.
    """

    cells: int
    alike: int = 0
    mended: int = 0


def merge(stores: Sequence[Path], output: Path) -> Merged:
    """Write one store that holds what several hold; it takes its name once it is whole.

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
    alike = mended = 0
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".posbench-") as unfinished:
            made = Path(unfinished) / "merged.db"
            with Store(made) as new:
                for number, path in enumerate(stores):
                    aside = Path(unfinished, str(number))
                    aside.mkdir()
                    both, failed = _absorbed(path, new, aside)
                    alike, mended = alike + both - failed, mended + failed
                cells = new.count()
            made.rename(output)
    except OSError as error:
        raise UsageError(f"{str(output)!r} cannot be written ({error.strerror}): name another with --output") from error
    return Merged(cells, alike, mended)


def _absorbed(path: Path, new: Store, aside: Path) -> tuple[int, int]:
    """What `Store.merge_from` says of a store or a published folder; makes files in a folder if it must."""
    if is_published(path):
        published = read(path)
        with Store(aside / "published.db") as store:
            store.restore(published.runs, published.records, published.readings)
        return new.merge_from(aside / "published.db")
    if path.suffix.lower() == ".csv" or path.is_dir():
        raise UsageError(
            f"{str(path)!r} does not say what its cells are made of: give the store, or the published folder"
        )
    with Store(path, must_exist=True) as store:
        store.check()
        store.vet()
        return new.merge_from(store.file(aside))
