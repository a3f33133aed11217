"""Galleries of maps: mean predictions beside their targets, and errors that follow the content of photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posbench.bench.records import CellRecord, Example
from posbench.bench.row import Row
from posbench.core.errors import one_line
from posbench.plugin.components import Target
from posbench.report.images import data_uri, photograph_uri, square
from posbench.report.labels import (
    CONTROL,
    board_title,
    groups,
    in_common,
    network_label,
    network_name,
    number_text,
    setting_text,
)

#: The targets over which the paper takes the mean of content errors.
CONTENT_TARGETS = ("H", "V", "G")
Floats = NDArray[np.float32]
#: Draws the target of a cell's identity, float32 [side, side]; None if that version is not installed.
Draw = Callable[[Mapping[str, Any], int], Floats | None]
#: A test image: the name of its photograph, and its thumbnail.
Image = tuple[str, bytes]
#: The errors of a padding by target and image.
Errors = Mapping[str, Mapping[Image, Floats]]


@dataclass(frozen=True)
class Picture:
    """A map or photograph with a text; only the text, if `uri` is empty."""

    uri: str
    text: str


@dataclass(frozen=True)
class Gallery:
    """Maps on one scale, a line a padding.

    Attributes:
        setting: distinguishes galleries with one title.
        scale: the meaning of the maps, and the values of the darkest and the brightest colour.
        columns: a heading for each column; a heading with a picture is also drawn below the maps of its column.
        lines: each with a map for each column, or None where there is none.
    """

    title: str
    setting: str
    scale: str
    columns: tuple[Picture, ...]
    lines: tuple[tuple[str, tuple[Picture | None, ...]], ...]


def drawn_by(targets: Iterable[Target], warn: Callable[[str], None]) -> Draw:
    """Return a function that draws these targets; each target and side is drawn once.

    Args:
        warn: called once for each target that cannot be drawn.
    """
    known = {(target.name, target.version): target for target in targets}

    @cache
    def resized(name: str, version: str, side: int) -> Floats | None:
        from posbench.plugin.resampling import resize

        full = full_size(name, version)
        return None if full is None else resize(full, side).float().numpy()

    @cache
    def full_size(name: str, version: str) -> Any:
        from posbench.bench.targets import pattern

        if (name, version) not in known:
            return None
        try:
            return pattern(known[name, version])
        # A plugin's code may raise anything; its target is then left out of the galleries, with a warning.
        except Exception as error:
            warn(f"target {name} cannot be drawn ({one_line(error)})")
            return None

    def draw(identity: Mapping[str, Any], side: int) -> Floats | None:
        return resized(identity["target"]["name"], identity["target"]["version"], side)

    return draw


def galleries(records: Sequence[CellRecord], rows: Sequence[Row], draw: Draw) -> list[Gallery]:
    """Return the mean predicted maps of all cells beside their targets, by target and setting, without controls.

    Galleries of all taps come first; of several versions of a cell, the newest counts.

    Args:
        rows: of these records, or of some of them.
        draw: draws the targets; those that it cannot draw are left out.
    """
    known = {record.cell_id: record for record in records}
    by_target = groups(rows, lambda row: (row.target, row.taps))
    with_records = [[(row, known[row.cell_id]) for row in group] for group in by_target]
    return [
        _target_gallery(group, draw) for group in with_records if any(record.outcome.mean_map for _, record in group)
    ]


def _target_gallery(group: Sequence[tuple[Row, CellRecord]], draw: Draw) -> Gallery:
    maps = {record.cell_id: square(record.outcome.mean_map, "<f4") for _, record in group if record.outcome.mean_map}
    first, record = group[0]
    target = draw(record.outcome.identity, next(iter(maps.values())).shape[0])
    scaled = [*maps.values(), *([] if target is None else [target])]
    low, high = float(min(values.min() for values in scaled)), float(max(values.max() for values in scaled))

    def picture(row: Row) -> Picture:
        if row.cell_id not in maps:
            return Picture("", row.status)
        score = row.scores.get("spc")
        return Picture(data_uri(maps[row.cell_id], low, high), f"SPC {_number(score.value)}" if score else "")

    at = {(network_name(row), row.padding): picture(row) for row, _ in group}
    networks = sorted(dict.fromkeys(name for name, _ in at), key=lambda name: name == CONTROL)
    # The control has no border: its one map is shown beside those of every padding.
    paddings = [name for name in dict.fromkeys(name for _, name in at) if name != CONTROL] or [CONTROL]
    targets = [] if target is None else [Picture(data_uri(target, low, high), first.target)]

    def line(padding: str) -> tuple[Picture | None, ...]:
        return (*targets, *(at.get((name, padding)) or at.get((name, CONTROL)) for name in networks))

    return Gallery(
        f"{first.target}: {board_title(first, 'maps')}",
        setting_text(first),
        f"{_number(low)} (dark) to {_number(high)} (bright)",
        tuple(Picture("", name) for name in (*(["target"] if targets else []), *networks)),
        tuple((padding, line(padding)) for padding in paddings),
    )


def _number(value: float) -> str:
    return number_text(value, digits=2)


def content_errors(
    records: Sequence[CellRecord], rows: Sequence[Row], examples: Mapping[str, Sequence[Example]], draw: Draw
) -> list[Gallery]:
    """Return the mean over targets of |target − prediction|, per pixel: a gallery a network, a column an image.

    The targets are those of H, V and G that the paddings of a network share, or others if they have none of these.
    Galleries of all taps come first; of several versions of a cell, the newest counts.

    Args:
        rows: of these records, or of some of them.
        examples: predictions for single photographs, by the id of the cell.
        draw: draws the targets; those that it cannot draw are left out.

    Source: Islam, Jia & Bruce (2020), section 4.1.
    """
    known = {record.cell_id: record for record in records}
    by_network = groups([row for row in rows if examples.get(row.cell_id)], lambda row: (network_label(row), row.taps))
    shown = []
    for group in sorted(by_network, key=lambda group: group[0].padding == CONTROL):
        errors: dict[str, dict[str, dict[Image, Floats]]] = {}
        for row in group:
            of_cell = _errors(known[row.cell_id], examples[row.cell_id], draw)
            if of_cell:
                errors.setdefault(row.padding, {})[row.target] = of_cell
        if errors:
            shown.append(_error_gallery(group[0], errors))
    return shown


def _error_gallery(row: Row, errors: Mapping[str, Errors]) -> Gallery:
    """Return the gallery of one network and setting, those of the row, from errors by padding."""
    every = {padding: list(of_padding) for padding, of_padding in errors.items()}
    preferred = {padding: [name for name in names if name in CONTENT_TARGETS] for padding, names in every.items()}
    # If no two paddings share a target, the padding with the most targets is shown alone.
    alone = max(every, key=lambda padding: len(every[padding]))
    choices = (in_common(preferred), in_common(every), (preferred[alone] or every[alone], [alone]))
    targets, paddings = next(choice for choice in choices if choice[0])
    lines = {padding: _mean([errors[padding][name] for name in targets]) for padding in paddings}
    images = list(dict.fromkeys(image for line in lines.values() for image in line))
    high = max((float(error.max()) for line in lines.values() for error in line.values()), default=0.0)

    def picture(error: Floats | None) -> Picture | None:
        if error is None:
            return None
        return Picture(data_uri(error, 0.0, high, "inferno"), f"mean {_number(float(error.mean()))}")

    left_out = ", ".join(padding for padding in errors if padding not in paddings)
    return Gallery(
        f"{network_name(row)}: {board_title(row, 'content error')}",
        setting_text(row),
        f"0 (dark) to {_number(high)} (bright), mean over {', '.join(targets)}"
        + (f"; without {left_out}, which has not all of these" if left_out else ""),
        tuple(Picture(photograph_uri(thumbnail), name.partition("@")[0]) for name, thumbnail in images),
        tuple((padding, tuple(picture(line.get(image)) for image in images)) for padding, line in lines.items()),
    )


def _errors(record: CellRecord, examples: Sequence[Example], draw: Draw) -> dict[Image, Floats]:
    """Return |target − prediction| for each image; nothing if the target cannot be drawn."""
    maps = {(example.photograph, example.thumbnail): square(example.drawn, "<f2") for example in examples}
    # A padding that shrinks the features also shrinks the predictions.
    target = draw(record.outcome.identity, next(iter(maps.values())).shape[0])
    return {} if target is None else {image: abs(target - values) for image, values in maps.items()}


def _mean(errors: Sequence[Mapping[Image, Floats]]) -> dict[Image, Floats]:
    """Return the mean over targets of each image that all targets have, at one size: a store may come from anywhere."""
    return {
        image: np.mean([of_target[image] for of_target in errors], axis=0)
        for image, first in errors[0].items()
        if all(image in of_target and of_target[image].shape == first.shape for of_target in errors)
    }
