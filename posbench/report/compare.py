"""Paired comparison of two sets of results, cell by cell, on the same photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from posbench.bench.row import SETTINGS, Row
from posbench.core.errors import UsageError, unknown
from posbench.core.files import user_path
from posbench.core.statistics import Difference, holm, paired_difference, welch_difference
from posbench.plugin.control import ControlCatalogue
from posbench.report.read_csv import from_csv
from posbench.report.rows import oldest_first, rows
from posbench.store.bundle import is_published, read
from posbench.store.store import Store

#: The columns by which a cell of one side is matched with a cell of the other.
KEY = ("target", *(name for name in SETTINGS if name != "target"), "control")
#: The columns that also differ where sides differ in one: another network has other weights, and so on.
_FREED = {"backbone": ("weights",), "control": ("weights", "images", "test_images", "n_test")}


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        label: the argument as the user wrote it.
        chosen: the columns that it selects by, with their values.
    """

    label: str
    rows: Sequence[Row]
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """Two cells that differ only in what is compared.

    Attributes:
        labels: the values that distinguish this line from others, by column.
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
        unmatched: the number of cells of either side without a counterpart.
    """

    metric: str
    a: str
    b: str
    lines: Sequence[Line]
    unmatched: int


def side(text: str, store: Path, controls: ControlCatalogue) -> Side:
    """Return the rows that an argument of `posbench compare` selects.

    Args:
        text: the path of a store, of a published folder or of a CSV file, or columns with their values, such as
            `padding=zero,target=H`.
        store: from which columns select.
        controls: the installed controls.

    Raises:
        UsageError: if it is none of these, or selects nothing.
    """
    path = user_path(text)
    if path.is_dir() or (path.is_file() and is_published(path)):
        return Side(text, rows(read(path).records, controls))
    if path.is_file():
        with path.open("rb") as file:
            is_store = file.read(16).startswith(b"SQLite format 3")
        return Side(text, _stored(path, controls) if is_store else from_csv(path, controls))
    if "=" not in text:
        raise UsageError(f"{text!r} is no file: give a store, a CSV file, or columns such as padding=zero")
    chosen = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in KEY:
            raise unknown("column", name, KEY)
        chosen[name] = value
    every = _stored(store, controls)
    selected = [row for row in every if all(str(row[name] or "") == value for name, value in chosen.items())]
    if not selected:
        raise UsageError(f"no cell in {str(store)!r} has {text}: `posbench leaderboard --csv -` lists what is there")
    return Side(text, selected, chosen)


def _stored(path: Path, controls: ControlCatalogue) -> list[Row]:
    with Store(path, must_exist=True) as store:
        return rows(store.records(), controls)


def compare(a: Side, b: Side, metric: str) -> Differences:
    """Return the difference of every pair of cells that agree in all columns that neither side selects by.

    Raises:
        UsageError: if no cells correspond, or several do.
    """
    named = {*a.chosen, *b.chosen}
    free = named | {other for name in named for other in _FREED.get(name, ()) if other not in named}
    key = [name for name in KEY if name not in free]
    first, second = (_by_key(side, key, metric, controls="control" in named) for side in (a, b))
    shared = [at for at in first if at in second]
    if not shared:
        raise UsageError(
            f"{a.label!r} and {b.label!r} have no cells with {metric} in common: they must agree in "
            f"{', '.join(key)}; `posbench run` computes what is missing"
        )
    differences = [_difference(first[at], second[at], metric) for at in shared]
    adjusted = holm([difference.p for difference in differences])
    varying = [i for i, name in enumerate(key) if name == "target" or len({at[i] for at in shared}) > 1]
    lines = [
        Line(
            {key[i]: at[i] for i in varying},
            first[at].scores[metric].value,
            second[at].scores[metric].value,
            difference,
            p,
        )
        for at, difference, p in zip(shared, differences, adjusted, strict=True)
    ]
    return Differences(metric, a.label, b.label, lines, len(first) + len(second) - 2 * len(shared))


def _by_key(side: Side, key: Sequence[str], metric: str, *, controls: bool) -> dict[tuple[str, ...], Row]:
    """Return the scored rows by the values of the key; of several versions of one cell, the newest."""
    by_key: dict[tuple[str, ...], Row] = {}
    scored = (row for row in side.rows if metric in row.scores and (controls or not row.control))
    for row in oldest_first(scored):
        at = tuple(_key_value(row, name) for name in key)
        before = by_key.get(at)
        for name in KEY:
            if before is not None and before[name] != row[name]:
                raise UsageError(f"{side.label!r} stands for both {before[name]} and {row[name]}: add {name}=… to it")
        by_key[at] = row
    return by_key


def _key_value(row: Row, name: str) -> str:
    """Return the value of a column as text; of the target of a control, the name of the checked target."""
    if name == "target":
        return row.target.removesuffix(row.of_control.target_suffix if row.of_control else "")
    return "" if row[name] is None else str(row[name])


def _difference(a: Row, b: Row, metric: str) -> Difference:
    """Return a − b, paired by photograph where both rows have photographs in common."""
    by_photograph = paired_difference(
        a.by_photograph(metric), b.by_photograph(metric), cross_fitted=a.mutual or b.mutual
    )
    return by_photograph or welch_difference(a.mean(metric), b.mean(metric))


def to_json(differences: Differences) -> str:
    """Return the table as JSON."""
    return json.dumps(asdict(differences), indent=1)
