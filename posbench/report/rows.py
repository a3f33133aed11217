"""Results as rows of the published table, and their columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posbench.bench.records import CellRecord, MeasurementRecord
from posbench.bench.verdict import verdicts

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

_SETTINGS = ("taps", "seed", "image_size", "precision", "score_at", "n_train", "n_test")
#: The first columns of every table of cells, and the last: all that are not a metric.
FIRST = (
    *("backbone", "weights", "padding", "images", "test_images", "target", "readout"),
    *_SETTINGS,
    *("n_test_photos", "status", "reason"),
)
#: The metrics whose columns every table has, in this order; others follow by name.
_METRICS = ("spc", "mae", "r2")
LAST = (
    *("degenerate", "reach", "control", "control_of", "verdict"),
    *("seconds", "cell_id", "posbench_version", "created"),
)
#: With what text begins that a spreadsheet would run.
FORMULA = ("=", "+", "-", "@", "\t", "\n")


def rows(records: Iterable[CellRecord]) -> list[Row]:
    """Cells as rows, with the verdict on the network of each."""
    made = [row(record) for record in records]
    for one, verdict in zip(made, verdicts(made), strict=True):
        one["verdict"] = verdict.text if verdict else None
    return made


def row(record: CellRecord) -> Row:
    """One cell as a row; a metric that was not computed has no key, nor has one that is called like a column.

    Beyond the columns of the table, `by_photograph` holds, for each metric, the mean of each photograph, and `mutual`
    whether readouts were cross-fitted on these photographs.
    """
    identity, outcome = record.outcome.identity, record.outcome
    # Should a metric be there in several versions, the newest is the one that a reader wants.
    scored = sorted(outcome.scores, key=lambda score: _natural(score.version))
    scores: Row = {}
    for score in scored:
        scores |= dict(zip(_spread([score.metric]), (score.value, score.lo, score.hi), strict=True))
    return scores | {
        "backbone": identity["backbone"]["name"],
        "weights": identity["weights"]["label"],
        "padding": identity["padding"]["name"],
        "images": identity["images"]["label"],
        "test_images": identity["test_images"]["label"],
        "target": identity["target"]["name"],
        "readout": identity["readout"]["name"],
        **{key: identity[key] for key in _SETTINGS},
        "n_test_photos": outcome.n_test_photos,
        "status": outcome.status,
        "reason": outcome.reason,
        "degenerate": outcome.degenerate,
        "reach": outcome.reach,
        "control": identity.get("control"),
        "control_of": identity.get("control_of"),
        "verdict": None,
        "by_photograph": {score.metric: score.by_photograph for score in scored},
        "mutual": _mutual(identity),
        "seconds": outcome.seconds,
        "cell_id": record.cell_id,
        "posbench_version": record.posbench_version,
        "created": record.created,
    }


def _mutual(identity: Mapping[str, Any]) -> bool:
    train, test = identity["images"], identity["test_images"]
    return bool(train.get("crossed")) and train["sha256"] == test["sha256"]


def _natural(version: str) -> list[tuple[int, str]]:
    """Sorts versions as people read them: 9 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", version)]


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of these rows: the same for every table but for metrics beyond posbench's own."""
    known = {*FIRST, *LAST, *_spread(_METRICS)}
    extra = sorted({key for row in rows for key in row if key not in known and f"{key}_lo" in row})
    return [*FIRST, *_spread(_METRICS), *_spread(extra), *LAST]


def _spread(metrics: Iterable[str]) -> list[str]:
    return [name for metric in metrics for name in (metric, f"{metric}_lo", f"{metric}_hi")]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a data frame, one row a cell."""
    import pandas as pd

    return pd.DataFrame(rows, columns=columns(rows))


def to_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> str:
    """The rows as CSV: floats in full, and an apostrophe before text that a spreadsheet would run as a formula.

    Args:
        names: of the columns; by default those of a table of cells.
    """
    text = io.StringIO()
    names = names or columns(rows)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(row.get(name, "")) for name in names} for row in rows)
    return text.getvalue()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A lone carriage return would end the row for some readers.
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    # What begins with an apostrophe of its own gets another, so that reading takes away just what was added.
    return "'" + text if text.lstrip("'").startswith(FORMULA) else text


def to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a JSON array of objects with the columns of the CSV."""
    names = columns(rows)
    return json.dumps([{name: row.get(name) for name in names} for row in rows], indent=1) + "\n"


#: The columns of the table of what is measured of jobs as a whole.
JOB_COLUMNS = (
    *("backbone", "weights", "padding", "images", "test_images", "metric", "tap"),
    *("image_size", "precision", "n_train", "n_test", "n_test_photos", "status", "reason"),
    *("value", "lo", "hi", "job_id", "posbench_version", "created"),
)


def job_row(record: MeasurementRecord) -> Row:
    """One number about a job as a row."""
    identity, reading = record.identity, record.measurement
    return {
        "backbone": identity["backbone"]["name"],
        "weights": identity["weights"]["label"],
        "padding": identity["padding"]["name"],
        "images": identity["images"]["label"],
        "test_images": identity["test_images"]["label"],
        "metric": reading.metric,
        "tap": reading.tap,
        **{key: identity[key] for key in ("image_size", "precision", "n_train", "n_test")},
        "n_test_photos": len(reading.by_photograph) or None,
        "status": reading.status,
        "reason": reading.reason,
        "value": reading.value,
        "lo": reading.lo,
        "hi": reading.hi,
        "job_id": record.job_id,
        "posbench_version": record.posbench_version,
        "created": record.created,
    }
