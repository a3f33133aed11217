"""Where the content of a photograph disturbs what is drawn over it: Islam, Jia & Bruce (2020), section 4.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posbench import boards
from posbench.galleries import Draw, Picture
from posbench.leaderboard import Row
from posbench.pictures import data_uri, photograph_uri
from posbench.store import Example, Record

#: The patterns over which the paper takes the mean.
TARGETS = ("H", "V", "G")
Floats = NDArray[np.float32]
#: A test image: the name of its photograph, and its thumbnail.
Image = tuple[str, bytes]


@dataclass(frozen=True)
class ContentErrors:
    """The content errors of one network and setting, a line a padding and a column a photograph, on one scale.

    Attributes:
        targets: over which the mean is taken.
        scale: the error of the brightest colour; the darkest is 0.
        photographs: each with its name.
        lines: a map for each photograph, or None if that padding has none of it.
    """

    title: str
    targets: tuple[str, ...]
    scale: str
    photographs: tuple[Picture, ...]
    lines: tuple[tuple[str, tuple[Picture | None, ...]], ...]


def content_errors(
    records: Sequence[Record], table: Sequence[Row], examples: Mapping[str, Sequence[Example]], draw: Draw
) -> list[ContentErrors]:
    """The mean over targets of |target − prediction|, per pixel, for single test photographs.

    The targets are those of H, V and G that all paddings of a network share, or whatever they share if that is none of
    these. Those of all taps come first; of several versions of a cell, the newest counts.

    Args:
        table: the rows of the records, in their order.
        examples: what was drawn for single photographs, by the id of the cell.
        draw: gives the targets; those that it cannot give are left out.
    """
    groups: dict[tuple[Any, ...], list[tuple[Record, Row]]] = {}
    for record, row in sorted(zip(records, table, strict=True), key=lambda one: str(one[1]["created"])):
        if not row["control"] and examples.get(record.cell_id):
            groups.setdefault((boards.network_label(row), row["taps"], *boards.setting(row)), []).append((record, row))
    ordered = sorted(groups.values(), key=lambda of: (of[0][1]["taps"] != "all", of[0][1]["padding"] == boards.CONTROL))
    found = (_of_network(group, examples, draw) for group in ordered)
    return [one for one in found if one]


def _of_network(
    group: Sequence[tuple[Record, Row]], examples: Mapping[str, Sequence[Example]], draw: Draw
) -> ContentErrors | None:
    drawn: dict[str, dict[str, dict[Image, Floats]]] = {}
    for record, row in group:
        errors = _errors(record, examples[record.cell_id], draw)
        drawn.setdefault(row["padding"], {}).setdefault(row["target"], {}).update(errors)
    shared = [name for name in next(iter(drawn.values())) if all(of.get(name) for of in drawn.values())]
    targets = [name for name in TARGETS if name in shared] or shared
    if not targets:
        return None
    lines = {padding: _mean([of[name] for name in targets]) for padding, of in drawn.items()}
    images = list(dict.fromkeys(image for line in lines.values() for image in line))
    high = max((float(error.max()) for line in lines.values() for error in line.values()), default=0.0)

    def picture(error: Floats | None) -> Picture | None:
        return None if error is None else Picture(data_uri(error, 0.0, high, "inferno"), f"mean {error.mean():.2f}")

    first = group[0][1]
    label = boards.network_name(first)
    return ContentErrors(
        f"{label}: {boards.board_title(first, 'content error')}, readout {first['readout']}, taps {first['taps']}",
        tuple(targets),
        f"{high:.2f}",
        tuple(Picture(photograph_uri(thumbnail), name) for name, thumbnail in images),
        tuple((padding, tuple(picture(line.get(image)) for image in images)) for padding, line in lines.items()),
    )


def _errors(record: Record, examples: Sequence[Example], draw: Draw) -> dict[Image, Floats]:
    """|target − prediction| for each image; nothing if the target cannot be had."""
    maps = {(one.photograph, one.thumbnail): _map(one.drawn) for one in examples}
    # A padding that shrinks the features makes what is drawn from them smaller too.
    target = draw(record.outcome.identity, next(iter(maps.values())).shape[0])
    return {} if target is None else {image: abs(target - values) for image, values in maps.items()}


def _mean(errors: Sequence[Mapping[Image, Floats]]) -> dict[Image, Floats]:
    """Over targets, of the images that all of them have."""
    return {
        image: np.mean([one[image] for one in errors], axis=0)
        for image in errors[0]
        if all(image in one for one in errors)
    }


def _map(content: bytes) -> Floats:
    flat = np.frombuffer(content, "<f2").astype(np.float32)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)
