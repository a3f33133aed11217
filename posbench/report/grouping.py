"""Which rows belong together: those of one network or target in one setting, and what their paddings have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

from posbench.bench.taps import ALL
from posbench.report.labels import network_label, setting
from posbench.report.rows import Row

Item = TypeVar("Item", bound=Hashable)


def groups(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    """Rows that agree in setting and key, those of all taps first; in each the newest last, and no controls."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: str(row["created"])):
        if not row["control"]:
            found.setdefault((key(row), *setting(row)), []).append(row)
    return sorted(found.values(), key=lambda group: group[0]["taps"] != ALL)


def whole(rows: Sequence[Row]) -> list[Row]:
    """Rows, and their controls, without those of single taps of a network whose taps were read together, too."""

    def network(row: Row) -> tuple[Any, ...]:
        return network_label(row), *setting(row)

    together = {network(row) for row in rows if not row["control"] and not row["taps"].isdecimal()}
    single = {
        row["cell_id"] for row in rows if not row["control"] and row["taps"].isdecimal() and network(row) in together
    }
    return [row for row in rows if row["cell_id"] not in single and row["control_of"] not in single]


def in_common(having: Mapping[str, Collection[Item]]) -> tuple[list[Item], list[str]]:
    """The items, such as targets, and the owners of them all, such as paddings, that make the most pairs of the two.

    So one padding that has few targets, or one more, does not take them from the others. Choices are what two owners
    share, or all; of equal ones, more items are better.

    Returns:
        Items and owners, each in the order in which they come; nothing where no two owners share an item.
    """
    sets = {name: set(items) for name, items in having.items()}
    choices = [a & b for a, b in combinations(sets.values(), 2)]
    choices += [set.intersection(*sets.values())] if len(sets) > 1 else []

    def pairs(items: set[Item]) -> tuple[int, int]:
        return len(items) * sum(items <= has for has in sets.values()), len(items)

    shared: set[Item] = max(choices, key=pairs, default=set())
    if not shared:
        return [], []
    items = dict.fromkeys(item for of in having.values() for item in of)
    return [item for item in items if item in shared], [name for name, has in sets.items() if shared <= has]
