"""Numbers that papers print, and our measurements beside them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posbench.bench.experiments import FOLDER
from posbench.bench.row import Row
from posbench.core.errors import UsageError
from posbench.report import markdown
from posbench.report.boards import distinct_reasons, note_number
from posbench.report.labels import estimate_text

#: The metrics that papers print.
METRICS = ("spc", "mae")
#: The settings of a paper's row that does not name them: those that its other tables vary.
USUAL = {"padding": "zero", "depth": "1", "kernel": "3", "readout_padding": "0", "tap": "all"}
#: The readouts whose scores are compared with a paper's, and the parameter in their name.
_READOUT = re.compile(r"(?:ridge|ridge-cv|sgd|sgd-text)(?:-(?P<parameter>k|depth|pad)(?P<value>\d))?")
_PARAMETERS = {"k": "kernel", "depth": "depth", "pad": "readout_padding"}
_PHOTOGRAPHS = "pascal-s"
#: timm's suffix for the weights that the paper used, torchvision's first ones.
TORCHVISION = ".tv_in1k"
_SYNTHETIC = ("black", "white", "noise")
#: The paper's errors of stripes are on the scale of a sinusoid from −1 to 1; correlations do not depend on scale.
_SIGNED = "-signed"
_STRIPES = ("HS", "VS")
#: The columns that distinguish rows beside the target; one that does not vary is named once, below the table.
SETTING_COLUMNS = (
    *("test_images", "backbone", "weights", "padding", "readout", "taps", "seed"),
    *("images", "image_size", "n_train", "n_test", "precision", "score_at"),
)

Key = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Published:
    """One table of a paper.

    Attributes:
        name: such as `islam2020-table1`.
        numbers: the scores by metric, by what was measured.
    """

    name: str
    numbers: Mapping[Key, Mapping[str, float]]

    def find(self, row: Row) -> Mapping[str, float]:
        """Return the scores that the table prints for a row of ours, by metric; empty if it has no such entry.

        Any photographs correspond to those that the paper tested on, and any weights to the paper's.
        """
        key = _key(row)
        scores = self.numbers.get(key, {}) if key else {}
        on_another_scale = row.target in _STRIPES
        return {metric: value for metric, value in scores.items() if not (on_another_scale and metric == "mae")}


@dataclass(frozen=True)
class Comparison:
    """Our measurements beside a paper's, as a table of text.

    Attributes:
        labels: headings of the columns that say what was measured, the target first.
        lines: each with its labels, and for each metric the measured number, the published one, and the difference.
        constant: the settings that all lines share.
        notes: remarks and reasons.
    """

    title: str
    labels: list[str]
    lines: list[tuple[list[str], list[tuple[str, str, str]]]]
    constant: str
    notes: list[str]


def published(name: str) -> Published:
    """Return a table by its name: the paper's, then `-table` and the table's number.

    Raises:
        UsageError: if there is none of this name.
    """
    tables = {table.name: table for table in every_table()}
    if name not in tables:
        raise UsageError(f"no published table {name!r}: choose {', '.join(tables)}")
    return tables[name]


def every_table() -> list[Published]:
    """Return all tables that ship with posbench."""
    tables: dict[str, dict[Key, dict[str, float]]] = {}
    for path in sorted(FOLDER.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                entry = USUAL | {"backbone": line["backbone"], "target": line["target"], "stimuli": line["stimuli"]}
                if line["backbone"] == "none":
                    entry["padding"] = "none"
                if line["variant"]:
                    name, _, value = line["variant"].partition("=")
                    entry[name] = value
                table = tables.setdefault(f"{path.stem}-table{line['table']}", {})
                table[frozenset(entry.items())] = {"spc": float(line["spc"]), "mae": float(line["mae"])}
    return [Published(name, numbers) for name, numbers in tables.items()]


def _key(row: Row) -> Key | None:
    """Return what a row of ours measures, in a paper's terms; None if no paper can have it."""
    readout = _READOUT.fullmatch(row.readout)
    images = row.test_images
    photographs = images == "photos" or images.startswith(("folder:", "pixels:"))
    if readout is None or not (photographs or images in _SYNTHETIC):
        return None
    entry = USUAL | {
        "backbone": row.backbone.removesuffix(TORCHVISION),
        "target": row.target.removesuffix(_SIGNED),
        "stimuli": _PHOTOGRAPHS if photographs else images,
        "padding": row.padding,
        "tap": row.taps,
    }
    if readout["parameter"]:
        entry[_PARAMETERS[readout["parameter"]]] = readout["value"]
    return frozenset(entry.items())


def compare(rows: Sequence[Row], table: Published) -> Comparison:
    """Return rows of ours, by target, beside the numbers of a paper's table, without rows of controls."""
    rows = [row for row in rows if not row.control]
    # A readout without a seed does not make the seed a column; two seeds do.
    varying = [name for name in SETTING_COLUMNS if len({row[name] for row in rows} - {None}) > 1]
    same = [name for name in SETTING_COLUMNS if name not in varying]
    targets = list(dict.fromkeys(row.target for row in rows))
    reasons = distinct_reasons(rows)
    lines = []
    for row in sorted(rows, key=lambda row: targets.index(row.target)):
        labels = [row.target, *("–" if row[name] is None else str(row[name]) for name in varying)]
        printed = table.find(row)
        lines.append((labels, [_numbers(row, metric, printed, reasons) for metric in METRICS]))
    notes = [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
    notes = [*_departures([row for row in rows if table.find(row)]), *notes]
    constant = "; ".join(f"{name} {value}" for name in same if rows and (value := rows[0][name]) not in (None, ""))
    return Comparison(f"measured beside {table.name}", ["target", *varying], lines, constant, notes)


def _departures(rows: Sequence[Row]) -> list[str]:
    """Return notes on how rows beside a paper's numbers differ from the paper's setup."""
    untrained = {row.backbone: None for row in rows if row.weights.startswith("random:")}
    others = {
        row.weights: None for row in rows if row.weights.startswith("imagenet:") and TORCHVISION not in row.weights
    }
    generated = {row.images: None for row in rows if not row.images.startswith(("photos", "folder:", "pixels:"))}
    sizes = {f"{row.image_size} px": None for row in rows if row.image_size != 224}
    notes = {
        "untrained here, trained on ImageNet in the paper": untrained,
        "not the paper's weights, which are torchvision's": others,
        "trained on here; the paper trains on photographs": generated,
        "to a side here; the paper's images have 224 px": sizes,
    }
    departures = [f"{', '.join(names)}: {note}" for note, names in notes.items() if names]
    if any(row.score_at != "image" for row in rows):
        departures.append("scored on the readout's grid; the paper scores at image size")
    return departures


def _numbers(row: Row, metric: str, printed: Mapping[str, float], reasons: Sequence[str]) -> tuple[str, str, str]:
    """Return our score, the published one and their difference, as text."""
    score, theirs = row.scores.get(metric), printed.get(metric)
    number = note_number(row, reasons)
    note = f" [{number}]" if number else ""
    ours = estimate_text(score, digits=3) if score else row.status if note else "–"
    return (
        ours + note,
        "–" if theirs is None else f"{theirs:.3f}",
        "–" if theirs is None or score is None else f"{round(score.value - theirs, 3) + 0:+.3f}",
    )


def headings(comparison: Comparison) -> list[str]:
    """Return the headings of all columns."""
    return [*comparison.labels, *(f"{metric}\n{name}" for metric in METRICS for name in ("ours", "published", "Δ"))]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table."""
    rows = [[*labels, *(text for numbers in scores for text in numbers)] for labels, scores in comparison.lines]
    heads, *lines = [[markdown.text(cell) for cell in line] for line in (headings(comparison), *rows)]
    table = markdown.table(heads, lines, labels=len(comparison.labels))
    title, *below = map(markdown.text, (comparison.title, comparison.constant, *comparison.notes))
    return "\n".join([f"**{title}**", "", *table, "", *below, ""])
