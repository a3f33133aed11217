"""The maps that readouts draw, beside the patterns that they were to draw, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posbench.bench.records import CellRecord
from posbench.core.errors import one_line
from posbench.plugin.components import Target
from posbench.report import labels
from posbench.report.grouping import groups
from posbench.report.pictures import data_uri, square
from posbench.report.rows import Row

Floats = NDArray[np.float32]
#: Draws a target as it was asked for, [side, side], from a cell's identity; None if that version is not installed.
Draw = Callable[[Mapping[str, Any], int], Floats | None]


@dataclass(frozen=True)
class Picture:
    """A map or photograph on the page; without one, `text` stands alone."""

    uri: str
    text: str


@dataclass(frozen=True)
class Gallery:
    """Maps on one scale, a line a padding.

    Attributes:
        setting: what tells galleries of one title apart.
        scale: what the maps are, and the values of the darkest and the brightest colour.
        columns: what maps are of; one that is itself a picture is laid below the maps of its column.
        lines: each with a map a column, or None where there is none.
    """

    title: str
    setting: str
    scale: str
    columns: tuple[Picture, ...]
    lines: tuple[tuple[str, tuple[Picture | None, ...]], ...]


def drawn_by(targets: Iterable[Target], tell: Callable[[str], None]) -> Draw:
    """Draws these targets, each side of one once.

    Args:
        tell: hears of a target that cannot be drawn, once.
    """
    known = {(one.name, one.version): one for one in targets}

    @cache
    def drawn(name: str, version: str, side: int) -> Floats | None:
        from posbench.plugin.resampling import resize

        whole = patterns(name, version)
        return None if whole is None else resize(whole, side).float().numpy()

    @cache
    def patterns(name: str, version: str) -> Any:
        from posbench.bench.targets import pattern

        if (name, version) not in known:
            return None
        try:
            return pattern(known[name, version])
        except Exception as error:
            tell(f"target {name} cannot be drawn ({one_line(error)})")
            return None

    def draw(identity: Mapping[str, Any], side: int) -> Floats | None:
        return drawn(identity["target"]["name"], identity["target"]["version"], side)

    return draw


def galleries(records: Sequence[CellRecord], rows: Sequence[Row], draw: Draw) -> list[Gallery]:
    """The mean predicted maps of all cells that are no controls, by target and setting, beside the target.

    Those of all taps come first; of several versions of a cell, the newest counts.

    Args:
        rows: of these records, or of some of them.
    """
    known = {record.cell_id: record for record in records}
    found = groups(rows, lambda row: (row["target"], row["taps"]))
    drawn = [[(row, known[row["cell_id"]]) for row in group] for group in found]
    return [_gallery(group, draw) for group in drawn if any(record.outcome.mean_map for _, record in group)]


def _gallery(group: Sequence[tuple[Row, CellRecord]], draw: Draw) -> Gallery:
    maps = {one.cell_id: square(one.outcome.mean_map, "<f4") for _, one in group if one.outcome.mean_map}
    first, record = group[0]
    target = draw(record.outcome.identity, next(iter(maps.values())).shape[0])
    scaled = [*maps.values(), *([] if target is None else [target])]
    low, high = float(min(one.min() for one in scaled)), float(max(one.max() for one in scaled))

    def picture(row: Row, record: CellRecord) -> Picture:
        if record.cell_id not in maps:
            return Picture("", row["status"])
        score = row.get("spc")
        text = "" if score is None else f"SPC {labels.number_text(score, None, digits=2)}"
        return Picture(data_uri(maps[record.cell_id], low, high), text)

    at = {(labels.network_name(row), row["padding"]): picture(row, record) for row, record in group}
    networks = sorted(dict.fromkeys(name for name, _ in at), key=lambda name: name == labels.CONTROL)
    # The control has no border: its one map stands beside those of every padding.
    paddings = [one for one in dict.fromkeys(one for _, one in at) if one != labels.CONTROL] or [labels.CONTROL]
    asked = [] if target is None else [Picture(data_uri(target, low, high), first["target"])]

    def line(padding: str) -> tuple[Picture | None, ...]:
        return (*asked, *(at.get((one, padding)) or at.get((one, labels.CONTROL)) for one in networks))

    return Gallery(
        f"{first['target']}: {labels.board_title(first, 'maps')}",
        labels.setting_text(first),
        f"{labels.number_text(low, None, digits=2)} (dark) to {labels.number_text(high, None, digits=2)} (bright)",
        tuple(Picture("", name) for name in (*(["target"] if asked else []), *networks)),
        tuple((padding, line(padding)) for padding in paddings),
    )
