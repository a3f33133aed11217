"""Two sides of a question held against each other, cell by cell, on the same photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from posbench.core.errors import UsageError, unknown
from posbench.core.files import user_path
from posbench.core.statistics import Difference, MeanEstimate, holm, paired_difference, welch_difference
from posbench.report.read_csv import from_csv
from posbench.report.rows import Row, rows
from posbench.store.bundle import is_published, read
from posbench.store.store import Store

#: The columns by which a cell of one side finds its counterpart on the other.
KEY = (
    *("target", "backbone", "weights", "padding", "images", "test_images", "readout", "taps", "seed"),
    *("image_size", "precision", "score_at", "n_train", "n_test", "control"),
)
#: Another network has other weights, too; a control changes what it is for.
_FREED = {"backbone": ("weights",), "control": ("weights", "images", "test_images", "n_test")}
#: What controls with targets of their own add to the name of the target that they check.
_OWN_TARGETS = {"permuted": "-permuted", "smooth-random": "-smooth"}


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        label: as it was given.
        chosen: the values of the columns that it was selected by.
    """

    label: str
    rows: Sequence[Row]
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """Two cells that differ in what is compared alone.

    Attributes:
        labels: what tells them from other lines, by column.
        a, b: the scores.
        difference: a − b.
        adjusted: its p-value, corrected for all lines (Holm).
    """

    labels: Mapping[str, str]
    a: float
    b: float
    difference: Difference
    adjusted: float | None


@dataclass(frozen=True)
class Differences:
    """A table of differences.

    Attributes:
        unmatched: how many cells of either side have no counterpart.
    """

    metric: str
    a: str
    b: str
    lines: Sequence[Line]
    unmatched: int


def side(text: str, store: Path) -> Side:
    """The rows that an argument of `posbench compare` stands for.

    Args:
        text: the path of a store, of a published folder or of a CSV file, or columns with their values, such as
            `padding=zero,target=H`.
        store: where columns select from.

    Raises:
        UsageError: if it is none of these, or selects nothing.
    """
    path = user_path(text)
    if path.is_dir() or (path.is_file() and is_published(path)):
        return Side(text, rows(read(path).records))
    if path.is_file():
        with path.open("rb") as file:
            is_store = file.read(16).startswith(b"SQLite format 3")
        return Side(text, _stored(path) if is_store else from_csv(path))
    if "=" not in text:
        raise UsageError(f"{text!r} is no file: give a store, a CSV file, or columns such as padding=zero")
    chosen = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in KEY:
            raise unknown("column", name, KEY)
        chosen[name] = value
    found = [row for row in _stored(store) if all(str(row[name] or "") == value for name, value in chosen.items())]
    if not found:
        raise UsageError(f"no cell in {str(store)!r} has {text}: `posbench leaderboard --csv -` lists what is there")
    return Side(text, found, chosen)


def _stored(path: Path) -> list[Row]:
    with Store(path, must_exist=True) as store:
        return rows(store.records())


def compare(a: Side, b: Side, metric: str) -> Differences:
    """The difference of every pair of cells that agree in all columns but those that either side was selected by.

    Raises:
        UsageError: if no cells correspond, or several do.
    """
    named = {*a.chosen, *b.chosen}
    free = named | {other for name in named for other in _FREED.get(name, ()) if other not in named}
    key = [name for name in KEY if name not in free]
    first, second = (_by_key(one, key, metric, controls="control" in named) for one in (a, b))
    shared = [at for at in first if at in second]
    if not shared:
        raise UsageError(
            f"{a.label!r} and {b.label!r} have no cells with {metric} in common: they must agree in "
            f"{', '.join(key)}; `posbench run` computes what is missing"
        )
    differences = [_difference(first[at], second[at], metric) for at in shared]
    varying = [i for i, name in enumerate(key) if name == "target" or len({at[i] for at in shared}) > 1]
    lines = [
        Line({key[i]: at[i] for i in varying}, first[at][metric], second[at][metric], difference, p)
        for at, difference, p in zip(shared, differences, holm([one.p for one in differences]), strict=True)
    ]
    return Differences(metric, a.label, b.label, lines, len(first) + len(second) - 2 * len(shared))


def _by_key(one: Side, key: Sequence[str], metric: str, *, controls: bool) -> dict[tuple[str, ...], Row]:
    """The scored rows by what identifies them; of several versions of one cell, the newest."""
    found: dict[tuple[str, ...], Row] = {}
    scored = (row for row in one.rows if row.get(metric) is not None and (controls or not row["control"]))
    for row in sorted(scored, key=lambda row: str(row["created"])):
        target = str(row["target"]).removesuffix(_OWN_TARGETS.get(row["control"] or "", ""))
        at = tuple("" if row[name] is None else str(row[name]) for name in key)
        at = tuple(target if name == "target" else value for name, value in zip(key, at, strict=True))
        before = found.get(at)
        for name in KEY:
            if before is not None and before[name] != row[name]:
                raise UsageError(f"{one.label!r} stands for both {before[name]} and {row[name]}: add {name}=… to it")
        found[at] = row
    return found


def _difference(a: Row, b: Row, metric: str) -> Difference:
    one, two = (row.get("by_photograph", {}).get(metric, {}) for row in (a, b))
    mutual = bool(a.get("mutual") or b.get("mutual"))
    return paired_difference(one, two, cross_fitted=mutual) or welch_difference(_mean(a, metric), _mean(b, metric))


def _mean(row: Row, metric: str) -> MeanEstimate:
    return MeanEstimate(row[metric], row.get(f"{metric}_lo"), row.get(f"{metric}_hi"), row["n_test_photos"] or 0)


def to_json(found: Differences) -> str:
    """The table as JSON."""
    return json.dumps(asdict(found), indent=1)
