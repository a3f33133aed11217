"""Our measurements beside the numbers that a paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posbench.report import markdown
from posbench.report.labels import number_text
from posbench.report.published import TORCHVISION, Published
from posbench.report.rows import Row

#: What tells rows apart beside the target; what does not vary is said once, below the table.
_SETTINGS = (
    *("test_images", "backbone", "weights", "padding", "readout", "taps", "seed"),
    *("images", "image_size", "n_train", "n_test", "precision", "score_at"),
)
METRICS = ("spc", "mae")


@dataclass(frozen=True)
class Comparison:
    """A table of text.

    Attributes:
        labels: headings of the columns that say what was measured, the target first.
        lines: each with its labels, and for each metric what was measured, what is published, and the difference.
        constant: what holds for all lines.
        notes: what else to know.
    """

    title: str
    labels: list[str]
    lines: list[tuple[list[str], list[tuple[str, str, str]]]]
    constant: str
    notes: list[str]


def compare(rows: Sequence[Row], table: Published) -> Comparison:
    """Rows of ours, by target, beside what a table prints for the same."""
    rows = [row for row in rows if not row["control"]]
    # Whether a readout has a seed says nothing; which one it has does.
    varying = [name for name in _SETTINGS if len({row[name] for row in rows} - {None}) > 1]
    same = [name for name in _SETTINGS if name not in varying]
    ordered = sorted(rows, key=lambda row: list(dict.fromkeys(r["target"] for r in rows)).index(row["target"]))
    reasons = list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))
    lines = []
    for row in ordered:
        labels = [row["target"], *(_label(row[name]) for name in varying)]
        printed = table.find(row)
        lines.append((labels, [_numbers(row, metric, printed, reasons) for metric in METRICS]))
    notes = [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
    notes = [*_departures([row for row in rows if table.find(row)]), *notes]
    constant = "; ".join(f"{name} {value}" for name in same if rows and (value := rows[0][name]) not in (None, ""))
    return Comparison(f"measured beside {table.name}", ["target", *varying], lines, constant, notes)


def _departures(rows: Sequence[Row]) -> list[str]:
    """How rows that stand beside a paper's numbers differ from what the paper did."""
    untrained = {row["backbone"]: None for row in rows if row["weights"].startswith("random:")}
    others = {
        row["weights"]: None
        for row in rows
        if row["weights"].startswith("imagenet:") and TORCHVISION not in row["weights"]
    }
    generated = {row["images"]: None for row in rows if not row["images"].startswith(("photos", "folder:", "pixels:"))}
    sizes = {f"{row['image_size']} px": None for row in rows if row["image_size"] != 224}
    notes = {
        "untrained here, trained on ImageNet in the paper": untrained,
        "not the paper's weights, which are torchvision's": others,
        "trained on here; the paper trains on photographs": generated,
        "to a side here; the paper's images have 224 px": sizes,
    }
    found = [f"{', '.join(who)}: {note}" for note, who in notes.items() if who]
    if any(row["score_at"] != "image" for row in rows):
        found.append("scored on the readout's grid; the paper scores at image size")
    return found


def _label(value: object) -> str:
    return "–" if value is None else str(value)


def _numbers(row: Row, metric: str, printed: Mapping[str, float], reasons: Sequence[str]) -> tuple[str, str, str]:
    value, theirs = row.get(metric), printed.get(metric)
    note = f" [{reasons.index(row['reason']) + 1}]" if row["reason"] else ""
    lo, hi = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    half = None if lo is None or hi is None else (hi - lo) / 2
    ours = number_text(value, half, digits=3) if value is not None else row["status"] if note else "–"
    return (
        ours + note,
        "–" if theirs is None else f"{theirs:.3f}",
        "–" if theirs is None or value is None else f"{round(value - theirs, 3) + 0:+.3f}",
    )


def headings(comparison: Comparison) -> list[str]:
    """Of all columns."""
    return [*comparison.labels, *(f"{metric}\n{what}" for metric in METRICS for what in ("ours", "published", "Δ"))]


def to_markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown table."""
    rows = [[*labels, *(text for numbers in scores for text in numbers)] for labels, scores in comparison.lines]
    heads, *lines = [[markdown.text(cell) for cell in line] for line in (headings(comparison), *rows)]
    table = markdown.table(heads, lines, labels=len(comparison.labels))
    around = [markdown.text(one) for one in (comparison.title, comparison.constant, *comparison.notes)]
    return "\n".join([f"**{around[0]}**", "", *table, "", *around[1:], ""])
