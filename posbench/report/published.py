"""The numbers that a paper prints, and which of our rows each of them answers to."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posbench.bench.experiments import FOLDER
from posbench.core.errors import UsageError

#: What a row of a paper's table says when it says nothing: what its other tables vary.
USUAL = {"padding": "zero", "depth": "1", "kernel": "3", "readout_padding": "0", "tap": "all"}
#: The readouts that a paper's numbers are held against, and the parameter that their name carries.
_READOUT = re.compile(r"(?:ridge|ridge-cv|sgd|sgd-text)(?:-(?P<what>k|depth|pad)(?P<value>\d))?")
_PARAMETERS = {"k": "kernel", "depth": "depth", "pad": "readout_padding"}
_PHOTOGRAPHS = "pascal-s"
#: What timm calls the weights that the paper used, torchvision's first ones.
TORCHVISION = ".tv_in1k"
_SYNTHETIC = ("black", "white", "noise")
#: The paper's errors of stripes are on the scale of a sinusoid from −1 to 1; their correlations know no scale.
_SIGNED = "-signed"
_STRIPES = ("HS", "VS")

Key = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Published:
    """One table of a paper.

    Attributes:
        name: such as `islam2020-table1`.
        numbers: by what they were measured for, the scores by metric.
    """

    name: str
    numbers: Mapping[Key, Mapping[str, float]]

    def find(self, row: Mapping[str, Any]) -> Mapping[str, float]:
        """What the table prints for a row of ours, by metric; empty if it has no such entry.

        Any photographs answer to those that the paper tested on, and any weights to the paper's.
        """
        key = _key(row)
        found = self.numbers.get(key, {}) if key else {}
        on_another_scale = row["target"] in _STRIPES
        return {metric: value for metric, value in found.items() if not (on_another_scale and metric == "mae")}


def published(name: str) -> Published:
    """A table by its name: the paper's, then `-table` and the table's number.

    Raises:
        UsageError: if there is none of this name.
    """
    tables = {table.name: table for table in every_table()}
    if name not in tables:
        raise UsageError(f"no published table {name!r}: choose {', '.join(tables)}")
    return tables[name]


def every_table() -> list[Published]:
    """All tables that ship with posbench."""
    tables: dict[str, dict[Key, dict[str, float]]] = {}
    for path in sorted(FOLDER.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                entry = USUAL | {"backbone": line["backbone"], "target": line["target"], "stimuli": line["stimuli"]}
                if line["backbone"] == "none":
                    entry["padding"] = "none"
                if line["variant"]:
                    what, _, value = line["variant"].partition("=")
                    entry[what] = value
                table = tables.setdefault(f"{path.stem}-table{line['table']}", {})
                table[frozenset(entry.items())] = {"spc": float(line["spc"]), "mae": float(line["mae"])}
    return [Published(name, numbers) for name, numbers in tables.items()]


def _key(row: Mapping[str, Any]) -> Key | None:
    """What a row of ours measures, in a paper's terms; None if no paper could have it."""
    readout = _READOUT.fullmatch(row["readout"])
    images = str(row["test_images"])
    photographs = images == "photos" or images.startswith(("folder:", "pixels:"))
    if readout is None or not (photographs or images in _SYNTHETIC):
        return None
    entry = USUAL | {
        "backbone": row["backbone"].removesuffix(TORCHVISION),
        "target": row["target"].removesuffix(_SIGNED),
        "stimuli": _PHOTOGRAPHS if photographs else images,
        "padding": row["padding"],
        "tap": row["taps"],
    }
    if readout["what"]:
        entry[_PARAMETERS[readout["what"]]] = readout["value"]
    return frozenset(entry.items())
