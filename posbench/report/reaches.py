"""Rows as reaches: how far from the border each score says that position is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posbench.report.labels import apart, network_name, setting_parts
from posbench.report.rows import Row


@dataclass(frozen=True)
class Reach:
    """How far from the border one score reaches, in pixels, of at most half the image.

    Attributes:
        setting: what it was measured with, where not all were measured with the same.
    """

    target: str
    network: str
    padding: str
    images: str
    pixels: float
    ceiling: float
    setting: str = ""


def reaches(rows: Sequence[Row]) -> list[Reach]:
    """The reach of every score that has one, by target and network, the farthest first; controls are left out."""
    with_one = [row for row in rows if row["reach"] is not None and not row["control"]]
    found = [
        Reach(
            row["target"],
            network_name(row) + ("" if row["taps"] == "all" else f", taps {row['taps']}"),
            row["padding"],
            row["images"] if row["images"] == row["test_images"] else f"{row['images']} → {row['test_images']}",
            row["reach"],
            row["image_size"] / 2,
            setting,
        )
        for row, setting in zip(with_one, apart([_but_taps(row) for row in with_one]), strict=True)
    ]
    order = list(dict.fromkeys((one.target, one.network) for one in found))
    return sorted(found, key=lambda one: (order.index((one.target, one.network)), -one.pixels))


def _but_taps(row: Row) -> list[str]:
    return [part for part in setting_parts(row) if not part.startswith("taps ")]
