"""Display names of networks, images, settings and numbers, and groups of rows that belong together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol, TypeVar

from posbench.bench.row import JobRow, Row
from posbench.bench.taps import ALL
from posbench.report.rows import oldest_first

#: The backbone and padding of the control without a network, which is compared with every padding.
CONTROL = "none"
Item = TypeVar("Item", bound=Hashable)


class Interval(Protocol):
    """A 95 % interval; its bounds are None where there is none."""

    @property
    def lo(self) -> float | None: ...

    @property
    def hi(self) -> float | None: ...


class Estimate(Interval, Protocol):
    """A number with its interval, such as a score, a mean or a difference."""

    @property
    def value(self) -> float: ...


def family(row: Row) -> tuple[str, str]:
    """Return the backbone and its kind of weights, which are the same for all seeds."""
    return row.backbone, "untrained" if row.weights.startswith("random:") else row.weights


def network_label(row: Row | JobRow) -> str:
    """Return a network's name and, on lines of their own, its weights and the seed of its readout."""
    weights = f"untrained, {row.weights}" if row.weights.startswith("random:") else row.weights
    seed = row.seed if isinstance(row, Row) else None
    return f"{row.backbone}\n{weights}" + ("" if seed is None else f"\nreadout seed {seed}")


def network_name(row: Row | JobRow) -> str:
    """Return the network's label in one line; the control `none` has no weights to name."""
    return CONTROL if row.backbone == CONTROL else network_label(row).replace("\n", ", ")


def images_name(row: Row | JobRow) -> str:
    """Return the images that a score was trained and tested on."""
    return row.images if row.images == row.test_images else f"{row.images}, tested on {row.test_images}"


def setting(row: Row) -> tuple[Any, ...]:
    """Return what must agree, beside the taps, for two scores to be on one board."""
    images = (row.images, row.test_images)
    return (*images, row.readout, row.image_size, row.precision, row.score_at, row.n_train, row.n_test)


def crops_text(row: Row | JobRow) -> str:
    """Return the number and size of crops, such as `256 training and 64 test crops of 224 px`."""
    return f"{row.n_train} training and {row.n_test} test crops of {row.image_size} px"


def setting_parts(row: Row, taps: str = "") -> list[str]:
    """Return the settings of a score, beside its network, padding, images and target.

    Args:
        taps: text in place of the row's own taps.
    """
    parts = [crops_text(row), f"readout {row.readout}", f"taps {taps or row.taps}", row.precision]
    return parts if row.score_at == "grid" else [*parts, f"scored at {row.score_at} size"]


def setting_text(row: Row, taps: str = "") -> str:
    """Return the settings of a score in one line; see `setting_parts`."""
    crops, *others = setting_parts(row, taps)
    return f"{crops}; {', '.join(others)}"


def distinct_parts(settings: Sequence[Sequence[str]]) -> list[str]:
    """Return for each setting the parts that not all settings share."""
    common = set(settings[0]).intersection(*settings) if settings else set()
    return [", ".join(part for part in parts if part not in common) for parts in settings]


def tested(count: int, crops: int) -> str:
    """Return the number of independent test images: `15 photographs`, or `64 images` where each crop is one."""
    return f"{count} {'images' if count == crops else 'photographs'}"


def board_title(row: Row | JobRow, metric: str) -> str:
    """Return the title of a board of scores by one metric."""
    return f"{metric} on {images_name(row)}"


def cell_title(row: Row) -> str:
    """Return one cell in two lines: its network, padding and target, then its score and settings."""
    spc = row.scores.get("spc")
    score = f"SPC {estimate_text(spc, digits=2)}; " if spc else ""
    cell = f"{row.backbone} ({row.weights}), padding {row.padding}, target {row.target}"
    return f"{cell}\n{score}{row.sources}, {row.image_size} px, readout {row.readout}, taps {row.taps}"


def half_width(interval: Interval) -> float | None:
    """Return half the width of an interval; None where there is none."""
    return None if interval.lo is None or interval.hi is None else (interval.hi - interval.lo) / 2


def number_text(value: float, half: float | None = None, *, digits: int) -> str:
    """Return a number, with half the width of its interval if it has one: `0.62 ±0.11`."""
    # Adding zero turns −0 into 0.
    return f"{round(value, digits) + 0:.{digits}f}" + (f" ±{half:.{digits}f}" if half is not None else "")


def estimate_text(estimate: Estimate, *, digits: int) -> str:
    """Return an estimate with half the width of its interval; see `number_text`."""
    return number_text(estimate.value, half_width(estimate), digits=digits)


def groups(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    """Group rows that agree in setting and key, without controls.

    Groups of all taps come first; within a group the newest row comes last.
    """
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in oldest_first(rows):
        if not row.control:
            by_key.setdefault((key(row), *setting(row)), []).append(row)
    return sorted(by_key.values(), key=lambda group: group[0].taps != ALL)


def without_single_taps(rows: Sequence[Row]) -> list[Row]:
    """Return rows and their controls, without single taps of networks that were also read at several taps together."""

    def network(row: Row) -> tuple[Any, ...]:
        return network_label(row), *setting(row)

    together = {network(row) for row in rows if not row.control and not row.taps.isdecimal()}
    single = {row.cell_id for row in rows if not row.control and row.taps.isdecimal() and network(row) in together}
    return [row for row in rows if row.cell_id not in single and row.control_of not in single]


def in_common(items_of: Mapping[str, Collection[Item]]) -> tuple[list[Item], list[str]]:
    """Choose the items, such as targets, and the owners that have them all, such as paddings, with the most pairs.

    A padding with few targets, or with an additional one, does not remove targets from the others. The candidates are
    what two owners share, and what all share; of equal candidates, the one with more items is chosen.

    Args:
        items_of: the items of each owner.

    Returns:
        Items and owners, each in their original order; nothing where no two owners share an item.
    """
    sets = {name: set(items) for name, items in items_of.items()}
    choices = [a & b for a, b in combinations(sets.values(), 2)]
    choices += [set.intersection(*sets.values())] if len(sets) > 1 else []

    def pairs(items: set[Item]) -> tuple[int, int]:
        return len(items) * sum(items <= own for own in sets.values()), len(items)

    shared: set[Item] = max(choices, key=pairs, default=set())
    if not shared:
        return [], []
    ordered = dict.fromkeys(item for items in items_of.values() for item in items)
    return [item for item in ordered if item in shared], [name for name, own in sets.items() if shared <= own]
