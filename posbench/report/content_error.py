"""Where the content of a photograph disturbs what is drawn over it: Islam, Jia & Bruce (2020), section 4.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from posbench.bench.records import CellRecord, Example
from posbench.report import labels
from posbench.report.galleries import Draw, Gallery, Picture
from posbench.report.grouping import groups, in_common
from posbench.report.pictures import data_uri, photograph_uri, square
from posbench.report.rows import Row

#: The patterns over which the paper takes the mean.
TARGETS = ("H", "V", "G")
Floats = NDArray[np.float32]
#: A test image: the name of its photograph, and its thumbnail.
Image = tuple[str, bytes]
#: The errors of a padding by target and image.
Errors = Mapping[str, Mapping[Image, Floats]]


def content_errors(
    records: Sequence[CellRecord], rows: Sequence[Row], examples: Mapping[str, Sequence[Example]], draw: Draw
) -> list[Gallery]:
    """The mean over targets of |target − prediction|, per pixel: a gallery a network and setting, a column an image.

    The targets are those of H, V and G that paddings of a network share, or others if they have none of these. Those of
    all taps come first; of several versions of a cell, the newest counts.

    Args:
        rows: of these records, or of some of them.
        examples: what was drawn for single photographs, by the id of the cell.
        draw: gives the targets; those that it cannot give are left out.
    """
    known = {record.cell_id: record for record in records}
    of_networks = groups(
        [row for row in rows if examples.get(row["cell_id"])], lambda row: (labels.network_label(row), row["taps"])
    )
    found = []
    for group in sorted(of_networks, key=lambda group: group[0]["padding"] == labels.CONTROL):
        drawn: dict[str, dict[str, dict[Image, Floats]]] = {}
        for row in group:
            errors = _errors(known[row["cell_id"]], examples[row["cell_id"]], draw)
            if errors:
                drawn.setdefault(row["padding"], {})[row["target"]] = errors
        if drawn:
            found.append(_gallery(group[0], drawn))
    return found


def _gallery(row: Row, drawn: Mapping[str, Errors]) -> Gallery:
    """Of the network and setting of this row."""
    having = {name: list(of) for name, of in drawn.items()}
    asked = {name: [one for one in of if one in TARGETS] for name, of in having.items()}
    # With nothing to hold one padding against, the one with the most targets is shown by itself.
    alone = max(having, key=lambda name: len(having[name]))
    choices = (in_common(asked), in_common(having), (asked[alone] or having[alone], [alone]))
    targets, paddings = next(choice for choice in choices if choice[0])
    lines = {padding: _mean([drawn[padding][name] for name in targets]) for padding in paddings}
    images = list(dict.fromkeys(image for line in lines.values() for image in line))
    high = max((float(error.max()) for line in lines.values() for error in line.values()), default=0.0)

    def text(value: float) -> str:
        return labels.number_text(value, None, digits=2)

    def picture(error: Floats | None) -> Picture | None:
        return None if error is None else Picture(data_uri(error, 0.0, high, "inferno"), f"mean {text(error.mean())}")

    left_out = ", ".join(name for name in drawn if name not in paddings)
    return Gallery(
        f"{labels.network_name(row)}: {labels.board_title(row, 'content error')}",
        labels.setting_text(row),
        f"0 (dark) to {text(high)} (bright), mean over {', '.join(targets)}"
        + (f"; without {left_out}, which has not all of these" if left_out else ""),
        tuple(Picture(photograph_uri(thumbnail), name.partition("@")[0]) for name, thumbnail in images),
        tuple((padding, tuple(picture(line.get(image)) for image in images)) for padding, line in lines.items()),
    )


def _errors(record: CellRecord, examples: Sequence[Example], draw: Draw) -> dict[Image, Floats]:
    """|target − prediction| for each image; nothing if the target cannot be had."""
    maps = {(one.photograph, one.thumbnail): square(one.drawn, "<f2") for one in examples}
    # A padding that shrinks the features makes what is drawn from them smaller too.
    target = draw(record.outcome.identity, next(iter(maps.values())).shape[0])
    return {} if target is None else {image: abs(target - values) for image, values in maps.items()}


def _mean(errors: Sequence[Mapping[Image, Floats]]) -> dict[Image, Floats]:
    """Over targets, of the images that all of them have, of one size: a store may come from anywhere."""
    return {
        image: np.mean([one[image] for one in errors], axis=0)
        for image, first in errors[0].items()
        if all(image in one and one[image].shape == first.shape for one in errors)
    }
