"""Rows of stored results, and tables of rows as CSV, JSON and data frames."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posbench.bench.records import CellRecord, MeasurementRecord
from posbench.bench.row import FIRST, LAST, JobRow, Row, score_columns
from posbench.bench.verdict import verdicts
from posbench.plugin.control import ControlCatalogue

if TYPE_CHECKING:
    import pandas as pd

#: The metrics whose columns every table has, in this order; others follow by name.
METRICS = ("spc", "mae", "r2")
#: Characters at the start of a text that a spreadsheet runs as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\n")


def rows(records: Iterable[CellRecord], controls: ControlCatalogue) -> list[Row]:
    """Return cells as rows, each with the verdict on its network."""
    without = [row(record).interpreted(controls) for record in records]
    return [
        replace(row, verdict=verdict.text) if verdict else row
        for row, verdict in zip(without, verdicts(without), strict=True)
    ]


def row(record: CellRecord) -> Row:
    """Return one cell as a row, without a verdict and not interpreted."""
    identity, outcome = record.outcome.identity, record.outcome
    train, test = identity["images"], identity["test_images"]
    # Of several versions of a metric, the newest is kept.
    scores = sorted(outcome.scores, key=lambda score: _version_key(score.version))
    return Row(
        backbone=identity["backbone"]["name"],
        weights=identity["weights"]["label"],
        padding=identity["padding"]["name"],
        images=train["label"],
        test_images=test["label"],
        target=identity["target"]["name"],
        readout=identity["readout"]["name"],
        taps=identity["taps"],
        seed=identity["seed"],
        image_size=identity["image_size"],
        precision=identity["precision"],
        score_at=identity["score_at"],
        n_train=identity["n_train"],
        n_test=identity["n_test"],
        n_test_photos=outcome.n_test_photos,
        status=outcome.status,
        reason=outcome.reason,
        scores={score.metric: score for score in scores},
        degenerate=outcome.degenerate,
        reach=outcome.reach,
        control=identity.get("control"),
        control_of=identity.get("control_of"),
        verdict=None,
        seconds=outcome.seconds,
        cell_id=record.cell_id,
        posbench_version=record.posbench_version,
        created=record.created,
        mutual=bool(train.get("crossed")) and train["sha256"] == test["sha256"],
    )


def _version_key(version: str) -> list[tuple[int, str]]:
    """Sort key that orders versions by their numbers: 9 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", version)]


def oldest_first(rows: Iterable[Row]) -> list[Row]:
    """Sort rows by when they were computed, so that the newest result of a cell comes last."""
    return sorted(rows, key=lambda row: row.created)


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the columns of a table of these rows: fixed ones, and those of metrics beyond posbench's own by name."""
    known = {*FIRST, *LAST, *_score_columns(METRICS)}
    others = sorted({metric for row in rows for metric in row.scores if metric not in known})
    return [*FIRST, *_score_columns([*METRICS, *others]), *LAST]


def _score_columns(metrics: Iterable[str]) -> list[str]:
    return [column for metric in metrics for column in score_columns(metric)]


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as a data frame, one row a cell."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows], columns=columns(rows))


def to_csv(rows: Sequence[Row] | Sequence[JobRow], names: Sequence[str] | None = None) -> str:
    """Return rows as CSV: floats in full, and an apostrophe before text that a spreadsheet would run as a formula.

    Args:
        names: the columns; by default those of a table of cells.
    """
    text = io.StringIO()
    names = names or columns(row for row in rows if isinstance(row, Row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _escape_formula(row.get(name, "")) for name in names} for row in rows)
    return text.getvalue()


def _escape_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A lone carriage return would end the row for some readers.
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    # A text that begins with an apostrophe of its own gets another one, so that reading removes only the added one.
    return "'" + text if text.lstrip("'").startswith(FORMULA) else text


def to_json(rows: Sequence[Row]) -> str:
    """Return rows as a JSON array of objects with the columns of the CSV."""
    names = columns(rows)
    return json.dumps([{name: row.get(name) for name in names} for row in rows], indent=1) + "\n"


def job_row(record: MeasurementRecord) -> JobRow:
    """Return one measurement of a job as a row."""
    identity: Mapping[str, Any] = record.identity
    measurement = record.measurement
    return JobRow(
        backbone=identity["backbone"]["name"],
        weights=identity["weights"]["label"],
        padding=identity["padding"]["name"],
        images=identity["images"]["label"],
        test_images=identity["test_images"]["label"],
        metric=measurement.metric,
        tap=measurement.tap,
        image_size=identity["image_size"],
        precision=identity["precision"],
        n_train=identity["n_train"],
        n_test=identity["n_test"],
        n_test_photos=len(measurement.by_photograph) or None,
        status=measurement.status,
        reason=measurement.reason,
        value=measurement.value,
        lo=measurement.lo,
        hi=measurement.hi,
        job_id=record.job_id,
        posbench_version=record.posbench_version,
        created=record.created,
    )
