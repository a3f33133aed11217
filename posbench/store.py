"""The SQLite store: results as they come, one transaction a job, with what is needed to trust and resume them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from posbench import __version__, vetting
from posbench.components import Metric
from posbench.errors import UsageError, one_line
from posbench.plan import Cell, Identity, Job, Measured, Task, identify
from posbench.schema import ABSORB, APPLICATION_ID, CONFLICTS, MIGRATIONS, SCHEMA, SCHEMA_VERSION

_UPSERT = """
INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cell_id) DO UPDATE SET
    run_id = excluded.run_id, status = excluded.status, reason = excluded.reason, seconds = excluded.seconds,
    n_test_photos = excluded.n_test_photos, degenerate = excluded.degenerate, mean_map = excluded.mean_map,
    created = excluded.created, posbench_version = excluded.posbench_version, reach = excluded.reach
"""

#: What a cell's row has of its outcome as it is.
_OF_OUTCOME = ("status", "reason", "n_test_photos", "degenerate", "seconds", "reach")

#: How far two results for one cell may differ: what processors and versions of torch make of the same numbers.
CONFLICT = 1e-3


def _identifies(made: str, identity: str) -> bool:
    try:
        return made == identify(json.loads(identity))
    except ValueError:
        return False


@dataclass(frozen=True)
class StoredScore:
    """A metric of a stored cell; see `scoring.Score`."""

    metric: str
    version: str
    value: float
    lo: float | None
    hi: float | None
    by_photograph: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """What the readout of a cell drew for one test image.

    Attributes:
        photograph: that the image shows, as `NAME@hash8`.
        thumbnail: the image made small, uint8 red, green, blue, a square row by row.
        drawn: float16 little-endian, a square map row by row.
    """

    photograph: str
    thumbnail: bytes
    drawn: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        status: `ok`, `skipped` (cannot exist) or `failed`; `reason` says why.
        n_test_photos: how many independent photographs the scores rest on.
        degenerate: the share of test predictions that were constant.
        seconds: the cell's share of its job's time.
        mean_map: the mean predicted map, float32 little-endian, square.
        reach: how far from the border the SPC reaches, in pixels; None where that cannot be said.
        examples: of test images; a store gives them by `Store.examples` alone, as few ask for them.
    """

    identity: Identity
    status: str
    reason: str = ""
    n_test_photos: int | None = None
    degenerate: float | None = None
    seconds: float = 0.0
    mean_map: bytes | None = None
    scores: Sequence[StoredScore] = ()
    reach: float | None = None
    examples: Sequence[Example] = ()


@dataclass(frozen=True)
class StoredReading:
    """A metric of a job as a whole; see `observation.Reading`.

    Attributes:
        status, reason: as an outcome's.
        picture: float32 little-endian, row by row, `columns` to a row.
    """

    metric: str
    version: str
    tap: str = "all"
    status: str = "ok"
    reason: str = ""
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    by_photograph: Mapping[str, float] = field(default_factory=dict)
    picture: bytes | None = None
    columns: int | None = None


@dataclass(frozen=True)
class JobRecord:
    """A stored reading: of which job, and when and by what it was made."""

    job_id: str
    identity: Identity
    run_id: int
    reading: StoredReading
    created: str
    posbench_version: str


@dataclass(frozen=True)
class Record:
    """A stored cell: its outcome, and when and by what it was made."""

    cell_id: str
    run_id: int
    outcome: Outcome
    created: str
    posbench_version: str


@dataclass(frozen=True)
class Run:
    """One time that a job was computed: when, and how."""

    run_id: int
    job_id: str
    provenance: Mapping[str, Any]
    created: str


class Store:
    """An open store; use it as a context manager.

    Args:
        path: the file; created unless `must_exist`.

    Raises:
        UsageError: if it cannot be opened or written, is no store, or was written by a newer posbench.
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = path
        if must_exist and not path.is_file():
            raise UsageError(f"there is no store at {str(path)!r}: `posbench run` makes one, or name it with --store")
        with self._explained():
            # An absolute path, as SQLite would take `:memory:` for no file at all.
            self._connection = sqlite3.connect(path.absolute(), timeout=60, isolation_level=None)
        try:
            with self._explained():
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._connection.execute("PRAGMA trusted_schema = OFF")
                # A rollback journal, not a write-ahead log: one file, safe on network disks and against a lost reset.
                self._connection.execute("PRAGMA journal_mode = DELETE")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._prepare(must_exist=must_exist)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, *, must_exist: bool) -> None:
        """Create the schema in an empty file, unless it must exist, or check that it is one of ours."""
        # What a view or a trigger would do is not for whoever made the file to say.
        if found := self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')"
        ).fetchone():
            raise UsageError(
                f"{str(self.path)!r} holds {found[0][:40]!r}, which is no table: posbench made no such store; "
                "name another with --store"
            )
        if self._is_current():
            return  # so that a store can be read where nothing can be written
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not version and not tables and not must_exist:
                for statement in SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            elif application != APPLICATION_ID:
                raise UsageError(
                    f"{str(self.path)!r} is a database, but not a posbench store: name another with --store"
                )
            elif version > SCHEMA_VERSION:
                raise UsageError(f"store {str(self.path)!r} has schema {version}, newer than this posbench: update it")
            if 0 < version < SCHEMA_VERSION:
                self.check()
            for old in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
                for statement in MIGRATIONS[old]:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {old + 1}")

    def check(self) -> None:
        """Read all of the file, and hold its indices against its tables, and ids against what they are hashes of.

        Raises:
            UsageError: if it is damaged.
        """
        with self._explained():
            problems = [problem for (problem,) in self._connection.execute("PRAGMA integrity_check(1)").fetchall()]
            if problems != ["ok"]:
                # What SQLite says may go over several lines, of which the last is the particular one.
                raise sqlite3.DatabaseError(f"malformed: {problems[0].splitlines()[-1]}")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            # The first schema had no measures.
            for table, column in (("cells", "cell_id"), ("measures", "job_id"))[: 1 if version == 1 else 2]:
                for made, identity in self._connection.execute(f"SELECT DISTINCT {column}, identity FROM {table}"):  # noqa: S608
                    if not _identifies(made, identity):
                        raise sqlite3.DatabaseError(
                            f"malformed: {column} {str(made)[:12]!r} is not that of its identity"
                        )

    def _is_current(self) -> bool:
        found = [
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        ]
        return found == [APPLICATION_ID, SCHEMA_VERSION]

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite raises about the file into one line that names the fix."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise UsageError(
                f"store {str(self.path)!r} cannot be used ({error}): check the folder, its rights and the disk, "
                "or name another with --store"
            ) from error
        except sqlite3.DatabaseError as error:
            if "malformed" in str(error):
                raise UsageError(
                    f"store {str(self.path)!r} is damaged ({error}): take a copy of it, or name another with --store"
                ) from error
            raise UsageError(
                f"{str(self.path)!r} is not a posbench store ({error}): name another with --store"
            ) from error

    @contextmanager
    def _vetted(self) -> Iterator[None]:
        """What is stored and cannot be is damage."""
        with self._explained():
            try:
                yield
            except (ValueError, TypeError) as error:
                raise sqlite3.DatabaseError(f"malformed: {one_line(error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; the write lock is taken at once, so that it cannot be lost half-way."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def save(
        self,
        job: Job,
        cells: Sequence[Cell],
        outcomes: Sequence[Outcome],
        provenance: Mapping[str, Any],
        readings: Sequence[StoredReading] = (),
    ) -> None:
        """Store a finished job: all its cells and readings or, should anything go wrong, none.

        A cell that was there before is replaced; its scores by other metrics, or by other versions of these, are kept.
        A result is not replaced by a failure to compute it again.

        Raises:
            UsageError: if the file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._transaction():
            run = self._connection.execute(
                "INSERT INTO runs (job_id, provenance, created) VALUES (?, ?, ?)", (job.id, json.dumps(provenance), now)
            ).lastrowid
            for cell, outcome in zip(cells, outcomes, strict=True):
                before = self._connection.execute("SELECT status FROM cells WHERE cell_id = ?", (cell.id,)).fetchone()
                if before == ("ok",) and outcome.status != "ok" and not outcome.scores:
                    continue
                self._connection.execute(
                    _UPSERT,
                    (
                        cell.id,
                        run,
                        json.dumps(outcome.identity, sort_keys=True),
                        outcome.status,
                        vetting.cleaned(outcome.reason),
                        outcome.n_test_photos,
                        outcome.degenerate,
                        outcome.seconds,
                        outcome.mean_map,
                        now,
                        __version__,
                        outcome.reach,
                    ),
                )
                self._connection.executemany(
                    "DELETE FROM scores WHERE cell_id = ? AND metric = ? AND version = ?",
                    [(cell.id, score.metric, score.version) for score in outcome.scores],
                )
                self._connection.executemany(
                    "INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (cell.id, s.metric, s.version, s.value, s.lo, s.hi, json.dumps(dict(s.by_photograph)))
                        for s in outcome.scores
                    ],
                )
                self._save_examples(cell.id, outcome.examples)
            self._save_readings(job, run, now, readings)

    def _save_examples(self, cell_id: str, examples: Sequence[Example]) -> None:
        self._connection.execute("DELETE FROM examples WHERE cell_id = ?", (cell_id,))
        for place, one in enumerate(examples):
            digest = hashlib.sha256(one.thumbnail).hexdigest()
            self._connection.execute("INSERT OR IGNORE INTO thumbnails VALUES (?, ?)", (digest, one.thumbnail))
            self._connection.execute(
                "INSERT INTO examples VALUES (?, ?, ?, ?, ?)", (cell_id, place, one.photograph, digest, one.drawn)
            )

    def _save_readings(self, job: Job, run: int | None, now: str, readings: Sequence[StoredReading]) -> None:
        for one in readings:
            same = (job.id, one.metric, one.version)
            before = self._connection.execute(
                "SELECT status FROM measures WHERE job_id = ? AND metric = ? AND version = ?", same
            ).fetchone()
            if before == ("ok",) and one.status != "ok":
                continue
            self._connection.execute(
                "DELETE FROM measures WHERE job_id = ? AND metric = ? AND version = ? AND (tap = ? OR status != 'ok')",
                (*same, one.tap),
            )
            self._connection.execute(
                "INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(
                        *same,
                        one.tap,
                        run,
                        json.dumps(job.identity(), sort_keys=True),
                        one.status,
                        vetting.cleaned(one.reason),
                    ),
                    *(one.value, one.lo, one.hi, json.dumps(dict(one.by_photograph))),
                    *(one.picture, one.columns, now, __version__),
                ),
            )

    def readings(self) -> list[JobRecord]:
        """What was measured of jobs, in the order in which it was."""
        names = [one.name for one in fields(StoredReading)]
        with self._explained():
            rows = self._connection.execute(
                f"SELECT job_id, identity, run_id, created, posbench_version, {', '.join(names)} "  # noqa: S608
                "FROM measures ORDER BY run_id, metric, CAST(tap AS INTEGER)"
            ).fetchall()
        records = []
        with self._vetted():
            for job_id, text, run_id, created, by_version, *values in rows:
                known: dict[str, Any] = dict(zip(names, values, strict=True))
                known |= {
                    "by_photograph": vetting.by_photograph(known["by_photograph"]),
                    "picture": vetting.maps(known["picture"], known["columns"]),
                    "reason": vetting.plain(known["reason"]),
                    "metric": vetting.plain(known["metric"]),
                }
                identity = vetting.job_identity(text)
                records.append(JobRecord(job_id, identity, run_id, StoredReading(**known), created, by_version))
        return records

    def measured(self) -> set[Measured]:
        """What needs no measuring of a job: its id, the metric's name and version."""
        with self._explained():
            rows = "SELECT DISTINCT job_id, metric, version FROM measures WHERE status != 'failed'"
            return set(self._connection.execute(rows).fetchall())

    def records(self, cell_ids: Iterable[str] | None = None) -> list[Record]:
        """Stored cells, in the order given or in that in which they were made; unknown ones are left out."""
        if cell_ids is None:
            return self._read("true")
        wanted = list(dict.fromkeys(cell_ids))
        found = {r.cell_id: r for r in self._read("cell_id IN (SELECT value FROM json_each(?))", json.dumps(wanted))}
        return [found[cell_id] for cell_id in wanted if cell_id in found]

    def find(self, prefix: str) -> Record:
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

    def _read(self, where: str, *values: object) -> list[Record]:
        """The cells that a condition selects, with their scores."""
        with self._explained():
            cells = self._connection.execute(f"SELECT * FROM cells WHERE {where} ORDER BY rowid", values).fetchall()  # noqa: S608  no condition is the user's
            rows = self._connection.execute(
                f"SELECT * FROM scores WHERE cell_id IN (SELECT cell_id FROM cells WHERE {where})",  # noqa: S608
                values,
            ).fetchall()
        scores: dict[str, list[StoredScore]] = {}
        with self._vetted():
            for cell_id, metric, version, value, lo, hi, text in rows:
                score = StoredScore(vetting.plain(metric), version, value, lo, hi, vetting.by_photograph(text))
                scores.setdefault(cell_id, []).append(score)
            records = []
            for cell_id, run_id, text, status, reason, *numbers, mean_map, created, version, reach in cells:
                known = (
                    status,
                    vetting.plain(reason),
                    *numbers,
                    vetting.maps(mean_map),
                    scores.get(cell_id, []),
                    reach,
                )
                outcome = Outcome(vetting.cell_identity(text), *known)
                records.append(Record(cell_id, run_id, outcome, created, version))
        return records

    def examples(self) -> dict[str, list[Example]]:
        """What cells drew for single test images, by the id of the cell; those without any are left out."""
        with self._explained():
            rows = self._connection.execute(
                "SELECT cell_id, photograph, digest, rgb, drawn FROM examples JOIN thumbnails ON digest = thumbnail "
                "ORDER BY cell_id, place"
            ).fetchall()
        found: dict[str, list[Example]] = {}
        with self._vetted():
            for cell_id, photograph, digest, rgb, drawn in rows:
                if hashlib.sha256(rgb).hexdigest() != digest:
                    raise ValueError(f"thumbnail {str(digest)[:12]!r} is not what its name is the hash of")
                example = Example(vetting.plain(photograph), vetting.thumbnail(rgb), vetting.small_map(drawn))
                found.setdefault(cell_id, []).append(example)
        return found

    def provenance(self, run_id: int) -> dict[str, Any]:
        """How the cells of one run were made."""
        with self._explained():
            (text,) = self._connection.execute("SELECT provenance FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return dict(json.loads(text))

    def runs(self) -> list[Run]:
        """Every time that a job was computed, in order."""
        with self._explained():
            rows = self._connection.execute("SELECT run_id, job_id, provenance, created FROM runs ORDER BY run_id")
            return [Run(run_id, job_id, json.loads(text), created) for run_id, job_id, text, created in rows]

    def restore(self, runs: Sequence[Run], records: Sequence[Record], readings: Sequence[JobRecord]) -> None:
        """Put into an empty store what another one held, with its times and its numbering of runs.

        Raises:
            UsageError: if it cannot be written, or holds something twice.
        """
        names = [one.name for one in fields(StoredReading)]
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO runs (run_id, job_id, provenance, created) VALUES (?, ?, ?, ?)",
                [(run.run_id, run.job_id, json.dumps(run.provenance), run.created) for run in runs],
            )
            for one in records:
                known = one.outcome
                self._insert(
                    "cells",
                    {
                        "cell_id": one.cell_id,
                        "run_id": one.run_id,
                        "identity": json.dumps(known.identity, sort_keys=True),
                    }
                    | {"created": one.created, "posbench_version": one.posbench_version, "mean_map": known.mean_map}
                    | {name: getattr(known, name) for name in _OF_OUTCOME},
                )
                for score in known.scores:
                    by_photograph = {"by_photograph": json.dumps(dict(score.by_photograph))}
                    self._insert("scores", {"cell_id": one.cell_id} | vars(score) | by_photograph)
            for reading in readings:
                self._insert(
                    "measures",
                    {"job_id": reading.job_id, "run_id": reading.run_id, "created": reading.created}
                    | {"identity": json.dumps(reading.identity, sort_keys=True)}
                    | {"posbench_version": reading.posbench_version}
                    | {name: getattr(reading.reading, name) for name in names}
                    | {"by_photograph": json.dumps(dict(reading.reading.by_photograph))},
                )

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        marks = ", ".join("?" * len(values))
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608  names are ours
            tuple(values.values()),
        )

    def absorb(self, other: Path) -> tuple[int, int]:
        """Add what another store of the same schema holds; where both hold a result, this one's is kept.

        A result takes the place of a failure or a skip. All is added or nothing.

        Returns:
            How many cells were added, and how many both had.

        Raises:
            UsageError: if both hold a result and they differ by more than `CONFLICT`.
        """
        with self._explained():
            self._connection.execute("ATTACH ? AS other", (str(other.absolute()),))
        try:
            with self._transaction():
                if found := self._connection.execute(CONFLICTS, {"most": CONFLICT}).fetchone():
                    what, metric, ours, theirs = found
                    raise UsageError(
                        f"{str(other)!r} conflicts with what was merged before it: {metric} of {what} "
                        f"is {theirs:.6g} there and {ours:.6g} here; recompute one of them with --force"
                    )
                (both,) = self._connection.execute(
                    "SELECT count(*) FROM cells JOIN other.cells USING (cell_id)"
                ).fetchone()
                before = self._connection.execute("SELECT count(*) FROM cells").fetchone()[0]
                for statement in ABSORB:
                    self._connection.execute(statement)
                after = self._connection.execute("SELECT count(*) FROM cells").fetchone()[0]
        finally:
            self._connection.execute("DETACH other")
        return after - before, both

    def last_run(self) -> int:
        """The number of the last time that a job was computed."""
        with self._explained():
            (number,) = self._connection.execute("SELECT coalesce(max(run_id), 0) FROM runs").fetchone()
        return int(number)

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
