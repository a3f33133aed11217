"""The SQLite store of results, written in one transaction a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from posbench.bench.field_types import replace_control_characters
from posbench.bench.plan import Cell, Job, identify
from posbench.bench.records import CellRecord, Example, JobRun, Measurement, MeasurementRecord, Outcome
from posbench.core.errors import UsageError, one_line
from posbench.core.version import __version__
from posbench.store.reader import StoreReader
from posbench.store.schema import CONFLICTS, COUNT_SHARED, MERGE
from posbench.store.validation import parse_json, validated

#: How far two results for one cell may differ: processors and versions of torch round differently.
TOLERANCE = 1e-3
#: Cells that are validated at once: all of them are in memory.
_BATCH = 1000
_Result = TypeVar("_Result", Outcome, Measurement)


class Store(StoreReader):
    """Results in a file; use it as a context manager. Arguments are those of `Database`.

    Every method raises a UsageError if the file cannot be read or written, or if something in it is not valid.
    """

    def check(self) -> None:
        """Read all of the file, and compare ids with the identities that they are hashes of."""
        super().check()
        with self._reporting_damage():
            # The first schema had no measures.
            tables = {name for (name,) in self._query("SELECT name FROM sqlite_master")}
            for table, column in {"cells": "cell_id", "measures": "job_id"}.items():
                if table not in tables:
                    continue
                statement = f"SELECT DISTINCT {column}, identity FROM {table}"  # noqa: S608  names are ours
                for stored_id, identity in self._connection.execute(statement):
                    if stored_id != identify(parse_json(identity)):
                        raise ValueError(f"{column} {str(stored_id)[:12]!r} is not that of its identity")

    def validate(self) -> None:
        """Read and validate all that is stored, a part at a time."""
        ids = [cell_id for (cell_id,) in self._query("SELECT cell_id FROM cells ORDER BY rowid")]
        for start in range(0, len(ids), _BATCH):
            self.records(ids[start : start + _BATCH])
        self.measurements()
        self.runs()
        for _ in self._examples():
            pass

    def save(
        self,
        job: Job,
        cells: Sequence[Cell],
        outcomes: Sequence[Outcome],
        provenance: Mapping[str, Any],
        measurements: Sequence[Measurement] = (),
    ) -> None:
        """Store a finished job: all its cells and measurements or, should anything go wrong, nothing.

        A cell that was there before is replaced; its scores by other metrics, or by other versions of these, are kept.
        A failure to compute a result again does not replace it. A result that is not valid is stored as failed.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        checked = [_valid(outcome, identity=outcome.identity, seconds=outcome.seconds) for outcome in outcomes]
        results = list(zip([cell.id for cell in cells], checked, strict=True))
        valid = [_valid(each, metric=each.metric, version=each.version) for each in measurements]
        identity = job.identity() if valid else {}
        with self._transaction():
            statement = "INSERT INTO runs (job_id, provenance, created) VALUES (?, ?, ?)"
            run = self._connection.execute(statement, (job.id, json.dumps(provenance), created)).lastrowid or 0
            statement = "SELECT cell_id FROM cells WHERE status = 'ok' AND cell_id IN (SELECT value FROM json_each(?))"
            succeeded = set(self._query(statement, json.dumps([cell_id for cell_id, _ in results])))
            kept = [
                CellRecord(cell_id, run, outcome, created, __version__)
                for cell_id, outcome in results
                if (cell_id,) not in succeeded or outcome.status == "ok" or outcome.scores
            ]
            self._insert_records(kept)
            self._replace_examples({record.cell_id: record.outcome.examples for record in kept})
            self._replace_measurements(
                [MeasurementRecord(job.id, identity, run, each, created, __version__) for each in valid]
            )

    def restore(
        self, runs: Sequence[JobRun], records: Sequence[CellRecord], measurements: Sequence[MeasurementRecord]
    ) -> None:
        """Fill an empty store with the contents of another one, with its times and its numbering of runs.

        Raises:
            UsageError: if it cannot be written, or holds something twice.
        """
        with self._transaction():
            self._insert("runs", [vars(run) | {"provenance": json.dumps(run.provenance)} for run in runs])
            self._insert_records(records)
            self._insert("measures", [_measures_row(record) for record in measurements])

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]], key: str = "") -> None:
        """Insert rows of the same columns, or update those that have the same key."""
        if not rows:
            return
        names = list(rows[0])
        update = ", ".join(f"{name} = excluded.{name}" for name in names)
        self._connection.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"  # noqa: S608  names are ours
            + (f" ON CONFLICT ({key}) DO UPDATE SET {update}" if key else ""),
            rows,
        )

    def _insert_records(self, records: Sequence[CellRecord]) -> None:
        """Insert cells with their scores, or update them."""
        scores = [(record.cell_id, score) for record in records for score in record.outcome.scores]
        self._insert("cells", [_cells_row(record) for record in records], key="cell_id")
        self._insert(
            "scores",
            [{"cell_id": cell_id} | vars(score) | _by_photograph(score.by_photograph) for cell_id, score in scores],
            key="cell_id, metric, version",
        )

    def _replace_examples(self, examples: Mapping[str, Sequence[Example]]) -> None:
        """Replace the examples of cells, by the id of the cell."""
        thumbnails, rows = {}, []
        for cell_id, of_cell in examples.items():
            for place, example in enumerate(of_cell):
                digest = hashlib.sha256(example.thumbnail).hexdigest()
                thumbnails[digest] = example.thumbnail
                rows.append((cell_id, place, example.photograph, digest, example.drawn))
        self._connection.executemany("DELETE FROM examples WHERE cell_id = ?", [(cell_id,) for cell_id in examples])
        self._connection.executemany("INSERT OR IGNORE INTO thumbnails VALUES (?, ?)", thumbnails.items())
        self._connection.executemany("INSERT INTO examples VALUES (?, ?, ?, ?, ?)", rows)

    def _replace_measurements(self, records: Sequence[MeasurementRecord]) -> None:
        """Insert measurements of one job in place of its earlier ones; a failure replaces failures alone."""
        if not records:
            return
        stored = "SELECT metric, version FROM measures WHERE job_id = ? AND status = 'ok'"
        measured = set(self._query(stored, records[0].job_id)) | {
            _metric(record) for record in records if record.measurement.status == "ok"
        }
        kept = [each for each in records if each.measurement.status == "ok" or _metric(each) not in measured]
        self._connection.executemany(
            "DELETE FROM measures WHERE job_id = ? AND metric = ? AND version = ? AND status != 'ok'",
            [(record.job_id, *_metric(record)) for record in kept],
        )
        self._insert("measures", [_measures_row(record) for record in kept], key="job_id, metric, version, tap")

    def merge_from(self, other: Path) -> tuple[int, int]:
        """Add the contents of another store of the same schema; where both hold a result, this one's is kept.

        A result replaces a failure. All is added or nothing.

        Returns:
            How many cells both had, and of how many of these one had only a failure.

        Raises:
            UsageError: if one cell or measurement is not the same in both, up to `TOLERANCE`.
        """
        with self._reporting_errors():
            self._connection.create_function("map_distance", 2, _map_distance)
            self._connection.execute("ATTACH ? AS other", (str(other.absolute()),))
        try:
            with self._transaction():
                if conflict := self._connection.execute(CONFLICTS, {"tolerance": TOLERANCE}).fetchone():
                    raise UsageError(
                        f"{str(other)!r} conflicts with what was merged before it: {conflict[0]}; "
                        "recompute one of them with --force"
                    )
                both, failed = self._connection.execute(COUNT_SHARED).fetchone()
                for statement in MERGE:
                    self._connection.execute(statement)
        finally:
            self._connection.execute("DETACH other")
        return both, failed


def _cells_row(record: CellRecord) -> dict[str, Any]:
    row = vars(record) | vars(record.outcome) | {"identity": json.dumps(record.outcome.identity, sort_keys=True)}
    return {name: value for name, value in row.items() if name not in ("outcome", "scores", "examples")}


def _measures_row(record: MeasurementRecord) -> dict[str, Any]:
    row = vars(record) | vars(record.measurement) | {"identity": json.dumps(record.identity, sort_keys=True)}
    del row["measurement"]
    return row | _by_photograph(record.measurement.by_photograph)


def _by_photograph(values: Mapping[str, float]) -> dict[str, str]:
    return {"by_photograph": json.dumps(dict(values))}


def _metric(record: MeasurementRecord) -> tuple[str, str]:
    return record.measurement.metric, record.measurement.version


def _valid(result: _Result, **kept: Any) -> _Result:
    """Return a result that can be read back; one that cannot, as with an infinite interval, failed with some fields."""
    try:
        return validated(type(result), replace(result, reason=replace_control_characters(result.reason)))
    except ValueError as error:
        reason = f"what came out of it cannot be stored: {one_line(error)}"
        return type(result)(status="failed", reason=reason, **kept)


def _map_distance(ours: bytes | None, theirs: bytes | None) -> float | None:
    """Return the largest difference of two maps, in units of the first one's largest value if that is above 1."""
    if ours is None or theirs is None or ours == theirs:
        return None
    import numpy as np

    first, second = (np.frombuffer(content, "<f4") for content in (ours, theirs))
    if len(first) != len(second):
        return float("inf")
    return float(abs(first - second).max() / max(1, abs(first).max()))
