"""The maps that readouts draw, beside the patterns that they were to draw, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posbench import boards
from posbench.components import Target
from posbench.errors import one_line
from posbench.leaderboard import Row
from posbench.pictures import data_uri
from posbench.store import Record

Floats = NDArray[np.float32]
#: Draws a target as it was asked for, [side, side], from a cell's identity; None if that version is not installed.
Draw = Callable[[Mapping[str, Any], int], Floats | None]


@dataclass(frozen=True)
class Picture:
    """A map on the page; without a map, `text` says why."""

    uri: str
    text: str


@dataclass(frozen=True)
class Gallery:
    """The mean predicted maps of one target and setting, a line a padding and a column a network, on one scale.

    Attributes:
        scale: the values of the darkest and the brightest colour.
        target: the pattern that was to be drawn, if it can be had.
    """

    title: str
    scale: str
    target: Picture | None
    networks: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Picture | None, ...]], ...]


def drawn_by(targets: Iterable[Target], tell: Callable[[str], None]) -> Draw:
    """Draws these targets, each side of one once.

    Args:
        tell: hears of a target that cannot be drawn, once.
    """
    known = {(one.name, one.version): one for one in targets}

    @cache
    def drawn(name: str, version: str, side: int) -> Floats | None:
        from posbench.maps import resize

        whole = patterns(name, version)
        return None if whole is None else resize(whole, side).float().numpy()

    @cache
    def patterns(name: str, version: str) -> Any:
        from posbench.maps import pattern

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


def galleries(records: Sequence[Record], table: Sequence[Row], draw: Draw) -> list[Gallery]:
    """The maps of all cells that are no controls, by target and setting, those of all taps first.

    Of several versions of a cell, the newest counts.

    Args:
        table: the rows of the records, in their order.
    """
    groups: dict[tuple[Any, ...], list[tuple[Record, Row]]] = {}
    for record, row in zip(records, table, strict=True):
        if not row["control"]:
            groups.setdefault((row["target"], row["taps"], *boards.setting(row)), []).append((record, row))
    ordered = sorted(groups.values(), key=lambda group: group[0][1]["taps"] != "all")
    return [_gallery(group, draw) for group in ordered if any(record.outcome.mean_map for record, _ in group)]


def _gallery(group: Sequence[tuple[Record, Row]], draw: Draw) -> Gallery:
    drawn = {record.cell_id: values for record, _ in group if (values := _map(record)) is not None}
    first = group[0][1]
    side = next(iter(drawn.values())).shape[0]
    target = draw(group[0][0].outcome.identity, side)
    scaled = [*drawn.values(), *([] if target is None else [target])]
    low, high = float(min(one.min() for one in scaled)), float(max(one.max() for one in scaled))

    def picture(record: Record, row: Row) -> Picture:
        values = drawn.get(record.cell_id)
        if values is None:
            return Picture("", row["status"])
        score = row.get("spc")
        return Picture(data_uri(values, low, high), "" if score is None else f"SPC {score + 0:.2f}")

    newest = sorted(group, key=lambda one: str(one[1]["created"]))
    at = {(boards.network_name(row), row["padding"]): picture(record, row) for record, row in newest}
    # The control, which is called so in either place, comes last.
    networks, paddings = (
        tuple(sorted(dict.fromkeys(key[i] for key in at), key=lambda name: name == boards.CONTROL)) for i in (0, 1)
    )
    title = f"{first['target']}: {boards.board_title(first, 'maps')}, readout {first['readout']}, taps {first['taps']}"
    return Gallery(
        title,
        f"{low + 0:.2f} (dark) to {high + 0:.2f} (bright)",
        None if target is None else Picture(data_uri(target, low, high), f"target {first['target']}"),
        networks,
        tuple((padding, tuple(at.get((network, padding)) for network in networks)) for padding in paddings),
    )


def _map(record: Record) -> Floats | None:
    if not record.outcome.mean_map:
        return None
    flat = np.frombuffer(record.outcome.mean_map, "<f4").astype(np.float32)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)
