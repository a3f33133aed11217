"""The SQLite store: results as they come, one transaction a job, with what is needed to trust and resume them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posbench.bench.plan import Cell, Job, Measured, Task, identify
from posbench.bench.records import CellRecord, Example, JobRun, Measurement, MeasurementRecord, Outcome, Score
from posbench.core.errors import UsageError, one_line
from posbench.core.version import __version__
from posbench.plugin.components import Metric
from posbench.store import validation as validation
from posbench.store.database import Database
from posbench.store.schema import ABSORB, CONFLICTS, SHARED

#: How far two results for one cell may differ: what processors and versions of torch make of the same numbers.
CONFLICT = 1e-3
#: Cells that are vetted at once: each is held whole.
_AT_ONCE = 1000
#: Where a cell's identity holds what cells of one network have in common (`posbench.bench.verdict`).
_NETWORK = (
    *("$.backbone.name", "$.weights.label", "$.padding.name", "$.readout.name", "$.taps", "$.seed"),
    *("$.image_size", "$.precision", "$.score_at", "$.n_train"),
)


class Store(Database):
    """Results in a file; use it as a context manager. Arguments and errors are those of `Database`.

    What is read has been vetted: if something in it cannot be, a UsageError says that the store is damaged.
    """

    def check(self) -> None:
        """Read all of the file, and hold ids against what they are hashes of.

        Raises:
            UsageError: if it is damaged.
        """
        super().check()
        with self._vetted():
            # The first schema had no measures.
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
            for table, column in (("cells", "cell_id"), ("measures", "job_id")):
                for made, identity in (
                    self._connection.execute(f"SELECT DISTINCT {column}, identity FROM {table}")  # noqa: S608
                    if table in tables
                    else ()
                ):
                    if made != identify(validation.parsed(identity)):
                        raise ValueError(f"{column} {str(made)[:12]!r} is not that of its identity")

    def save(
        self,
        job: Job,
        cells: Sequence[Cell],
        outcomes: Sequence[Outcome],
        provenance: Mapping[str, Any],
        readings: Sequence[Measurement] = (),
    ) -> None:
        """Store a finished job: all its cells and readings or, should anything go wrong, none.

        A cell that was there before is replaced; its scores by other metrics, or by other versions of these, are kept.
        A result is not replaced by a failure to compute it again. A result that could not be read back has failed.

        Raises:
            UsageError: if the file cannot be written.
        """
        made = datetime.now(UTC).isoformat(timespec="seconds"), __version__
        outcomes = [_sound(one, validation.outcome) for one in outcomes]
        readings = [_sound(one, validation.reading) for one in readings]
        with self._transaction():
            run = self._put("runs", {"job_id": job.id, "provenance": json.dumps(provenance), "created": made[0]})
            for cell, outcome in zip(cells, outcomes, strict=True):
                before = self._connection.execute("SELECT status FROM cells WHERE cell_id = ?", (cell.id,)).fetchone()
                if before != ("ok",) or outcome.status == "ok" or outcome.scores:
                    self._put_record(CellRecord(cell.id, run, outcome, *made))
                    self._put_examples(cell.id, outcome.examples)
            for reading in readings:
                same = (job.id, reading.metric, reading.version)
                before = self._connection.execute(
                    "SELECT status FROM measures WHERE job_id = ? AND metric = ? AND version = ?", same
                ).fetchone()
                if before == ("ok",) and reading.status != "ok":
                    continue
                self._connection.execute(
                    "DELETE FROM measures "
                    "WHERE job_id = ? AND metric = ? AND version = ? AND (tap = ? OR status != 'ok')",
                    (*same, reading.tap),
                )
                self._put_reading(MeasurementRecord(job.id, job.identity(), run, reading, *made))

    def restore(
        self, runs: Sequence[JobRun], records: Sequence[CellRecord], readings: Sequence[MeasurementRecord]
    ) -> None:
        """Put into an empty store what another one held, with its times and its numbering of runs.

        Raises:
            UsageError: if it cannot be written, or holds something twice.
        """
        with self._transaction():
            for run in runs:
                self._put("runs", vars(run) | {"provenance": json.dumps(run.provenance)})
            for record in records:
                self._put_record(record)
            for reading in readings:
                self._put_reading(reading)

    def _put(self, table: str, values: Mapping[str, Any], key: str = "") -> int:
        """Insert a row, or set that of the same key; the number of the row."""
        update = ", ".join(f"{name} = excluded.{name}" for name in values)
        done = self._connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608  names are ours
            + (f" ON CONFLICT ({key}) DO UPDATE SET {update}" if key else ""),
            tuple(values.values()),
        )
        return done.lastrowid or 0

    def _put_record(self, one: CellRecord) -> None:
        cell = vars(one) | vars(one.outcome) | {"identity": _canonical(one.outcome.identity)}
        for name in ("outcome", "scores", "examples"):
            del cell[name]
        self._put("cells", cell, key="cell_id")
        for score in one.outcome.scores:
            self._connection.execute(
                "DELETE FROM scores WHERE cell_id = ? AND metric = ? AND version = ?",
                (one.cell_id, score.metric, score.version),
            )
            numbers = {"by_photograph": json.dumps(dict(score.by_photograph))}
            self._put("scores", {"cell_id": one.cell_id} | vars(score) | numbers)

    def _put_examples(self, cell_id: str, examples: Sequence[Example]) -> None:
        self._connection.execute("DELETE FROM examples WHERE cell_id = ?", (cell_id,))
        for place, one in enumerate(examples):
            digest = hashlib.sha256(one.thumbnail).hexdigest()
            self._connection.execute("INSERT OR IGNORE INTO thumbnails VALUES (?, ?)", (digest, one.thumbnail))
            self._connection.execute(
                "INSERT INTO examples VALUES (?, ?, ?, ?, ?)", (cell_id, place, one.photograph, digest, one.drawn)
            )

    def _put_reading(self, one: MeasurementRecord) -> None:
        numbers = {"by_photograph": json.dumps(dict(one.reading.by_photograph))}
        measure = vars(one) | vars(one.reading) | {"identity": _canonical(one.identity)} | numbers
        del measure["reading"]
        self._put("measures", measure)

    def readings(self) -> list[MeasurementRecord]:
        """What was measured of jobs, in the order in which it was."""
        with self._vetted():
            return [
                validation.job_record(_of(row, MeasurementRecord, reading=_of(row, Measurement)))
                for row in self._rows("SELECT * FROM measures ORDER BY run_id, metric, CAST(tap AS INTEGER)")
            ]

    def measured(self) -> set[Measured]:
        """What needs no measuring of a job: its id, the metric's name and version."""
        with self._explained():
            rows = "SELECT DISTINCT job_id, metric, version FROM measures WHERE status != 'failed'"
            return set(self._connection.execute(rows).fetchall())

    def records(self, cell_ids: Iterable[str] | None = None) -> list[CellRecord]:
        """Stored cells, in the order given or in that in which they were made; unknown ones are left out."""
        if cell_ids is None:
            return self._read("true")
        wanted = list(dict.fromkeys(cell_ids))
        found = {r.cell_id: r for r in self._read("cell_id IN (SELECT value FROM json_each(?))", json.dumps(wanted))}
        return [found[cell_id] for cell_id in wanted if cell_id in found]

    def find(self, prefix: str) -> CellRecord:
        """The one cell whose id starts so.

        Raises:
            UsageError: if there is none, or more than one.
        """
        found = self._read("substr(cell_id, 1, ?) = ?", len(prefix), prefix)
        if len(found) == 1 and prefix:
            return found[0]
        many = f"{len(found)} cells start with {prefix!r}: give more of the id"
        none = f"no cell in {str(self.path)!r} starts with {prefix!r}: `posbench leaderboard --csv -` lists their ids"
        raise UsageError(many if found else none)

    def related(self, record: CellRecord) -> list[CellRecord]:
        """Return a cell, its controls and all cells of its network, on which its verdict rests; in order of making."""
        network = " AND ".join(f"json_extract(identity, '{path}') IS json_extract(?2, '{path}')" for path in _NETWORK)
        condition = f"cell_id = ?1 OR json_extract(identity, '$.control_of') = ?1 OR ({network})"
        return self._read(condition, record.cell_id, _canonical(record.outcome.identity))

    def _read(self, where: str, *values: object) -> list[CellRecord]:
        """The cells that a condition selects, with their scores."""
        scores: dict[str, list[Score]] = {}
        with self._vetted():
            for row in self._rows(
                f"SELECT * FROM scores WHERE cell_id IN (SELECT cell_id FROM cells WHERE {where})",  # noqa: S608  no condition is the user's
                *values,
            ):
                scores.setdefault(row["cell_id"], []).append(_of(row, Score))
            return [
                validation.record(
                    _of(row, CellRecord, outcome=_of(row, Outcome, scores=scores.get(row["cell_id"], [])))
                )
                for row in self._rows(f"SELECT * FROM cells WHERE {where} ORDER BY rowid", *values)  # noqa: S608
            ]

    def _rows(self, statement: str, *values: object) -> Iterator[dict[str, Any]]:
        """Rows by column, what is JSON in them parsed.

        Raises:
            ValueError: if it is no JSON.
        """
        cursor = self._connection.execute(statement, values)
        names = [column for column, *_ in cursor.description]
        for row in cursor:
            found = dict(zip(names, row, strict=True))
            for name in ("identity", "by_photograph", "provenance"):
                if name in found:
                    found[name] = validation.parsed(found[name])
            yield found

    def examples(self) -> dict[str, list[Example]]:
        """What cells drew for single test images, by the id of the cell; those without any are left out."""
        found: dict[str, list[Example]] = {}
        for cell_id, example in self._examples():
            found.setdefault(cell_id, []).append(example)
        return found

    def _examples(self) -> Iterator[tuple[str, Example]]:
        sizes: dict[str, int] = {}
        with self._vetted():
            for cell_id, photograph, digest, rgb, drawn in self._connection.execute(
                "SELECT cell_id, photograph, digest, rgb, drawn FROM examples JOIN thumbnails ON digest = thumbnail "
                "ORDER BY cell_id, place"
            ):
                if hashlib.sha256(rgb).hexdigest() != digest:
                    raise ValueError(f"thumbnail {str(digest)[:12]!r} is not what its name is the hash of")
                example = validation.example(Example(photograph, rgb, drawn))
                if sizes.setdefault(cell_id, len(drawn)) != len(drawn):
                    raise ValueError("small maps of one cell that differ in size")
                yield cell_id, example

    def provenance(self, run_id: int) -> dict[str, Any]:
        """How the cells of one run were made."""
        with self._vetted():
            for row in self._rows("SELECT provenance FROM runs WHERE run_id = ?", run_id):
                return dict(validation.anything(row["provenance"]))
            raise ValueError(f"there is no run {run_id}")

    def runs(self) -> list[JobRun]:
        """Every time that a job was computed, in order."""
        with self._vetted():
            return [validation.run(_of(row, JobRun)) for row in self._rows("SELECT * FROM runs ORDER BY run_id")]

    def merge_from(self, other: Path) -> tuple[int, int]:
        """Add what another store of the same schema holds; where both hold a result, this one's is kept.

        What is there takes the place of a failure. All is added or nothing.

        Returns:
            How many cells both had, and of how many of these one had only a failure.

        Raises:
            UsageError: if one cell or reading is not the same in both, up to `CONFLICT`.
        """
        with self._explained():
            self._connection.create_function("apart", 2, _apart)
            self._connection.execute("ATTACH ? AS other", (str(other.absolute()),))
        try:
            with self._transaction():
                if found := self._connection.execute(CONFLICTS, {"most": CONFLICT}).fetchone():
                    raise UsageError(
                        f"{str(other)!r} conflicts with what was merged before it: {found[0]}; "
                        "recompute one of them with --force"
                    )
                both, failed = self._connection.execute(SHARED).fetchone()
                for statement in ABSORB:
                    self._connection.execute(statement)
        finally:
            self._connection.execute("DETACH other")
        return both, failed

    def count(self) -> int:
        """How many cells there are."""
        with self._explained():
            return int(self._one("SELECT count(*) FROM cells"))

    def vet(self) -> None:
        """Read all that is stored, a part at a time.

        Raises:
            UsageError: if something in it cannot be.
        """
        with self._explained():
            ids = [name for (name,) in self._connection.execute("SELECT cell_id FROM cells ORDER BY rowid")]
        for start in range(0, len(ids), _AT_ONCE):
            self.records(ids[start : start + _AT_ONCE])
        for part in (self.readings(), self.runs(), self._examples()):
            for _ in part:
                pass

    def last_run(self) -> int:
        """The number of the last time that a job was computed."""
        with self._explained():
            (number,) = self._connection.execute("SELECT coalesce(max(run_id), 0) FROM runs").fetchone()
        return int(number)

    def jobs_after(self, run: int) -> set[str]:
        """The ids of the jobs that were computed after this one, whatever came of them."""
        with self._explained():
            found = self._connection.execute("SELECT DISTINCT job_id FROM runs WHERE run_id > ?", (run,)).fetchall()
        return {job_id for (job_id,) in found}

    def knows(self, job_id: str) -> bool:
        """Whether a job was ever computed."""
        with self._explained():
            found = self._connection.execute("SELECT 1 FROM runs WHERE job_id = ? LIMIT 1", (job_id,)).fetchone()
        return found is not None

    def remaining(
        self, task: Task, since: int, metrics: Sequence[Metric] | None = None, *, forced: bool = False
    ) -> Task | None:
        """What is left to do of a task, or None, when others may have stored some of it.

        Args:
            since: what was stored after this run needs no second attempt, whatever became of it.
            metrics: by which a finished cell is scored; None if what was stored before that run counts for nothing.
            forced: the same for cells that are scored by all of them.
        """
        wanted = {(metric.name, metric.version) for metric in metrics or ()}
        before = metrics is not None and not forced

        def done(status: str, run: int) -> bool:
            return run > since or (before and status != "failed")

        cells, measures = [], []
        with self._explained():
            for cell in task.cells:
                rows = self._connection.execute("SELECT status, run_id FROM cells WHERE cell_id = ?", (cell.id,))
                scores = self._connection.execute("SELECT metric, version FROM scores WHERE cell_id = ?", (cell.id,))
                scored = wanted <= set(scores.fetchall())
                if not any(done(status, run) and (scored or status != "ok") for status, run in rows.fetchall()):
                    cells.append(cell)
            for m in task.measures:
                rows = self._connection.execute(
                    "SELECT status, run_id FROM measures WHERE job_id = ? AND metric = ? AND version = ?",
                    (task.job.id, m.name, m.version),
                )
                if not any(done(status, run) for status, run in rows.fetchall()):
                    measures.append(m)
        return replace(task, cells=tuple(cells), measures=tuple(measures)) if cells or measures else None

    def finished(self, metrics: Iterable[Metric]) -> set[str]:
        """The ids of cells that need no computing: skipped for good, or scored by all these metrics."""
        with self._explained():
            done = self._connection.execute("SELECT cell_id FROM cells WHERE status = 'skipped'").fetchall()
            scored = self._connection.execute(
                "SELECT cell_id, metric, version FROM scores JOIN cells USING (cell_id) WHERE status = 'ok'"
            ).fetchall()
        found: dict[str, set[tuple[str, str]]] = {}
        for cell_id, metric, version in scored:
            found.setdefault(cell_id, set()).add((metric, version))
        wanted = {(metric.name, metric.version) for metric in metrics}
        return {cell_id for (cell_id,) in done} | {cell_id for cell_id, has in found.items() if wanted <= has}


def _canonical(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _of(row: Mapping[str, Any], kind: Callable[..., Any], **more: Any) -> Any:
    """What a dataclass takes of a row, and what it does not have."""
    names = kind.__dataclass_fields__.keys() & row.keys()  # type: ignore[attr-defined]
    return kind(**{name: row[name] for name in names} | more)


def _sound(one: Any, check: Callable[[Any], Any]) -> Any:
    """An outcome or a reading that can be read back: what cannot, such as an interval without end, has failed."""
    one = replace(one, reason=validation.cleaned(one.reason))
    try:
        return check(one)
    except ValueError as error:
        reason = f"what came out of it cannot be stored: {one_line(error)}"
        if isinstance(one, Outcome):
            return Outcome(one.identity, "failed", reason, seconds=one.seconds)
        return Measurement(one.metric, one.version, status="failed", reason=reason)


def _apart(ours: bytes | None, theirs: bytes | None) -> float | None:
    """How far two maps are apart, in units of the first one's largest value if that is above 1; None without both."""
    if ours is None or theirs is None or ours == theirs:
        return None
    import numpy as np

    one, two = (np.frombuffer(content, "<f4") for content in (ours, theirs))
    if len(one) != len(two):
        return float("inf")
    return float(abs(one - two).max() / max(1, abs(one).max()))
