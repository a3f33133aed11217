"""Rows made by hand, and rows with some columns changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posbench.bench.plan import Cell
from posbench.bench.records import CellRecord, Outcome
from posbench.bench.row import Row
from posbench.plugin.registry import load_registry
from posbench.report.rows import row as to_row
from tests.factories import plan, scored

#: The controls that ship with posbench.
CONTROLS = load_registry().control_catalogue()
DEFAULTS: dict[str, Any] = {
    "backbone": "net",
    "weights": "imagenet:net@1",
    "padding": "zero",
    "images": "photos",
    "test_images": "photos",
    "target": "H",
    "readout": "ridge",
    "taps": "all",
    "seed": None,
    "image_size": 64,
    "precision": "fp32",
    "score_at": "grid",
    "n_train": 8,
    "n_test": 4,
    "n_test_photos": None,
    "status": "ok",
    "reason": "",
    "degenerate": None,
    "reach": None,
    "control": None,
    "control_of": None,
    "verdict": None,
    "seconds": 0.0,
    "cell_id": "cell",
    "posbench_version": "0.1.0",
    "created": "2026",
}


def make_row(
    by_photograph: Mapping[str, Mapping[str, float]] | None = None, *, mutual: bool = False, **columns: Any
) -> Row:
    """Return a row with these columns, others by default; a score needs its value alone, then without an interval."""
    bounds = {
        f"{name}_{bound}": None
        for name in columns
        for bound in ("lo", "hi")
        if name not in DEFAULTS and not name.endswith(("_lo", "_hi"))
    }
    return Row.from_columns(DEFAULTS | bounds | columns, CONTROLS, by_photograph, mutual=mutual)


def changed(row: Row, **columns: Any) -> Row:
    """Return a row with other values in some columns; a metric that is set to None has no score."""
    by_photograph = {metric: score.by_photograph for metric, score in row.scores.items()}
    return make_row(by_photograph, mutual=row.mutual, **dict(row) | columns)


def cell_record(cell: Cell, outcome: Outcome) -> CellRecord:
    """Return a stored cell of a run long ago."""
    return CellRecord(cell.id, cell.job.id, outcome, "2025-01-02T03:04:05+00:00", "0.1.0")


def plan_rows(
    scores: Mapping[tuple[str, ...], float | str | None], half: float | None = 0.1, **changes: Any
) -> list[Row]:
    """Return a row for each cell of a plan.

    Args:
        scores: the score of each cell, or `STATUS: REASON`, by backbone, padding and, where it matters, target; cells
            without either are left out.
        half: half the width of each score's interval.
        changes: of the plan.
    """
    rows = []
    for cell in plan(**changes).cells:
        names = (cell.job.backbone.name, cell.job.padding.name if cell.job.padding else "none", cell.target.name)
        value = scores.get(names, scores.get(names[:2]))
        if isinstance(value, str):
            status, _, reason = value.partition(": ")
            rows.append(to_row(cell_record(cell, Outcome(cell.identity(), status, reason))).interpreted(CONTROLS))
        elif value is not None:
            rows.append(to_row(cell_record(cell, scored(cell, value, half))).interpreted(CONTROLS))
    return rows
