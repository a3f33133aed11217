"""The queries of a store. All records that they return are validated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from posbench.bench.plan import Measured, Task
from posbench.bench.records import CellRecord, Example, JobRun, MeasurementRecord
from posbench.core.errors import UsageError
from posbench.plugin.components import Metric
from posbench.store.database import Database
from posbench.store.validation import parse_json, validated

#: Columns that hold JSON.
_JSON = ("identity", "by_photograph", "provenance")
#: Where a cell's identity holds what cells of one network have in common (`posbench.bench.verdict`).
_NETWORK = (
    *("$.backbone.name", "$.weights.label", "$.padding.name", "$.readout.name", "$.taps", "$.seed"),
    *("$.image_size", "$.precision", "$.score_at", "$.n_train"),
)


class StoreReader(Database):
    """Results in a file, to be read.

    Every method raises a UsageError if the file cannot be read, or if something in it is not valid: the store is
    damaged then.
    """

    def records(self, cell_ids: Iterable[str] | None = None) -> list[CellRecord]:
        """Return cells in the order of the ids, without unknown ones, or all cells in the order of their making."""
        if cell_ids is None:
            return self._records("true")
        ids = list(dict.fromkeys(cell_ids))
        by_id = {r.cell_id: r for r in self._records("cell_id IN (SELECT value FROM json_each(?))", json.dumps(ids))}
        return [by_id[cell_id] for cell_id in ids if cell_id in by_id]

    def find(self, prefix: str) -> CellRecord:
        """Return the cell whose id starts with a prefix.

        Raises:
            UsageError: if there is no such cell, or more than one.
        """
        records = self._records("substr(cell_id, 1, ?) = ?", len(prefix), prefix)
        if len(records) == 1 and prefix:
            return records[0]
        if records:
            raise UsageError(f"{len(records)} cells start with {prefix!r}: give more of the id")
        raise UsageError(
            f"no cell in {str(self.path)!r} starts with {prefix!r}: `posbench leaderboard --csv -` lists their ids"
        )

    def related(self, record: CellRecord) -> list[CellRecord]:
        """Return a cell, its controls and all cells of its network, on which its verdict rests; in order of making."""
        network = " AND ".join(f"json_extract(identity, '{path}') IS json_extract(?2, '{path}')" for path in _NETWORK)
        condition = f"cell_id = ?1 OR json_extract(identity, '$.control_of') = ?1 OR ({network})"
        return self._records(condition, record.cell_id, json.dumps(record.outcome.identity))

    def _records(self, condition: str, *values: object) -> list[CellRecord]:
        """Return the cells that meet an SQL condition, with their scores."""
        scores: dict[str, list[dict[str, Any]]] = {}
        with self._reporting_damage():
            for row in self._rows(
                f"SELECT * FROM scores WHERE cell_id IN (SELECT cell_id FROM cells WHERE {condition})",  # noqa: S608  no condition is the user's
                *values,
            ):
                scores.setdefault(row["cell_id"], []).append(row)
            return [
                validated(CellRecord, row | {"outcome": row | {"scores": scores.pop(row["cell_id"], [])}})
                for row in self._rows(f"SELECT * FROM cells WHERE {condition} ORDER BY rowid", *values)  # noqa: S608
            ]

    def measurements(
        self, job_ids: Iterable[str] | None = None, metrics: Iterable[Metric] | None = None
    ) -> list[MeasurementRecord]:
        """Return measurements in the order of their making: of some jobs, by some metrics in their versions, or all."""
        conditions, values = ["true"], []
        if job_ids is not None:
            conditions.append("job_id IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(job_ids)))
        if metrics is not None:
            pairs = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
            conditions.append(f"(metric, version) IN ({pairs})")
            values.append(json.dumps([(metric.name, metric.version) for metric in metrics]))
        statement = f"SELECT * FROM measures WHERE {' AND '.join(conditions)} "  # noqa: S608  no condition is the user's
        with self._reporting_damage():
            return [
                validated(MeasurementRecord, row | {"measurement": row})
                for row in self._rows(statement + "ORDER BY run_id, metric, CAST(tap AS INTEGER)", *values)
            ]

    def _rows(self, statement: str, *values: object) -> Iterator[dict[str, Any]]:
        """Yield rows by column, with the JSON in them parsed."""
        cursor = self._connection.execute(statement, values)
        names = [column for column, *_ in cursor.description]
        encoded = [name for name in _JSON if name in names]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            for name in encoded:
                try:
                    row[name] = parse_json(row[name])
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{name}: {error}") from None
            yield row

    def examples(self) -> dict[str, list[Example]]:
        """Return what cells predicted for single test images, by the id of the cell; cells without any are left out."""
        by_cell: dict[str, list[Example]] = {}
        for cell_id, example in self._examples():
            by_cell.setdefault(cell_id, []).append(example)
        return by_cell

    def _examples(self) -> Iterator[tuple[str, Example]]:
        sizes: dict[str, int] = {}
        with self._reporting_damage():
            for row in self._rows(
                "SELECT cell_id, photograph, digest, rgb AS thumbnail, drawn "
                "FROM examples JOIN thumbnails ON digest = examples.thumbnail ORDER BY cell_id, place"
            ):
                example = validated(Example, row)
                if hashlib.sha256(example.thumbnail).hexdigest() != row["digest"]:
                    raise ValueError(f"thumbnail {str(row['digest'])[:12]!r} is not what its name is the hash of")
                if sizes.setdefault(row["cell_id"], len(example.drawn)) != len(example.drawn):
                    raise ValueError("small maps of one cell that differ in size")
                yield row["cell_id"], example

    def provenance(self, run_id: int) -> dict[str, Any]:
        """Return how the cells of one run were made."""
        with self._reporting_damage():
            for row in self._rows("SELECT * FROM runs WHERE run_id = ?", run_id):
                return validated(JobRun, row).provenance
            raise ValueError(f"there is no run {run_id}")

    def runs(self) -> list[JobRun]:
        """Return every time that a job was computed, in order."""
        with self._reporting_damage():
            return [validated(JobRun, row) for row in self._rows("SELECT * FROM runs ORDER BY run_id")]

    def count(self) -> int:
        """Return the number of cells."""
        return int(self._one("SELECT count(*) FROM cells"))

    def last_run(self) -> int:
        """Return the number of the last time that a job was computed, or 0."""
        return int(self._one("SELECT coalesce(max(run_id), 0) FROM runs"))

    def jobs_after(self, run: int) -> set[str]:
        """Return the ids of the jobs that were computed after a run, whether or not they failed."""
        return {job_id for (job_id,) in self._query("SELECT DISTINCT job_id FROM runs WHERE run_id > ?", run)}

    def has_job(self, job_id: str) -> bool:
        """Return whether a job was ever computed."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM runs WHERE job_id = ?)", job_id))

    def finished(self, metrics: Iterable[Metric]) -> set[str]:
        """Return the ids of cells that need no computing: skipped for good, or scored by all these metrics."""
        wanted = {(metric.name, metric.version) for metric in metrics}
        scored: dict[str, set[tuple[str, str]]] = {}
        skipped = {cell_id for (cell_id,) in self._query("SELECT cell_id FROM cells WHERE status = 'skipped'")}
        rows = "SELECT cell_id, metric, version FROM scores JOIN cells USING (cell_id) WHERE status = 'ok'"
        with self._reporting_errors():
            for cell_id, metric, version in self._connection.execute(rows):
                scored.setdefault(cell_id, set()).add((metric, version))
        return skipped | {cell_id for cell_id, by in scored.items() if wanted <= by}

    def measured(self) -> set[Measured]:
        """Return the measurements of jobs that need no repeating: the job's id, the metric's name and version."""
        return set(self._query("SELECT DISTINCT job_id, metric, version FROM measures WHERE status != 'failed'"))

    def remaining(
        self, task: Task, since: int, metrics: Sequence[Metric] | None = None, *, forced: bool = False
    ) -> Task | None:
        """Return what is left to do of a task, or None, when others may have stored some of it.

        Args:
            since: a run; what was stored after it needs no second attempt, even if it failed.
            metrics: by which a finished cell is scored; None if what was stored before that run counts for nothing.
            forced: what was stored before that run counts for nothing, but cells are finished if scored by `metrics`.
        """
        wanted = {(metric.name, metric.version) for metric in metrics or ()}
        before = metrics is not None and not forced

        def done(status: str, run: int) -> bool:
            return run > since or (before and status != "failed")

        ids = [cell.id for cell in task.cells]
        scored: dict[tuple[str, str, int], set[tuple[str, str]]] = {}
        for *cell, metric, version in self._query(
            "SELECT cell_id, status, run_id, metric, version FROM cells LEFT JOIN scores USING (cell_id) "
            "WHERE cell_id IN (SELECT value FROM json_each(?))",
            json.dumps(ids),
        ):
            scored.setdefault(tuple(cell), set()).add((metric, version))
        measures = self._query("SELECT metric, version, status, run_id FROM measures WHERE job_id = ?", task.job.id)
        finished = {
            cell_id
            for (cell_id, status, run), by in scored.items()
            if done(status, run) and (wanted <= by or status != "ok")
        }
        measured = {(metric, version) for metric, version, status, run in measures if done(status, run)}
        left = replace(
            task,
            cells=tuple(cell for cell, cell_id in zip(task.cells, ids, strict=True) if cell_id not in finished),
            measures=tuple(metric for metric in task.measures if (metric.name, metric.version) not in measured),
        )
        return left if left.cells or left.measures else None
