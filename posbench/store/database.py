"""The SQLite file of a store: its schema and migrations, checks, transactions and errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from posbench.core.errors import UsageError, one_line
from posbench.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SCHEMA_VERSION


class Database:
    """An open file; use it as a context manager.

    Args:
        path: the file; created unless `must_exist`.
        must_exist: the file is only read, and stays as it is; one of an older schema is migrated in memory.

    Raises:
        UsageError: if it cannot be opened or written, is no store, is damaged, or was written by a newer posbench.
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = path
        self._in_memory = False
        if must_exist and not path.is_file():
            raise UsageError(f"there is no store at {str(path)!r}: `posbench run` makes one, or name it with --store")
        with self._reporting_errors():
            # An absolute path, as SQLite would take `:memory:` for no file at all.
            self._connection = _connect(path.absolute())
            try:
                # A rollback journal, not a write-ahead log: one file, safe on network disks and against a lost reset.
                # The mode is stored in the file, which must not change where it is only read.
                if not must_exist:
                    self._connection.execute("PRAGMA journal_mode = DELETE")
                self._prepare(must_exist=must_exist)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def _prepare(self, *, must_exist: bool) -> None:
        """Create the schema in an empty file, unless it must exist, or check that it is one of ours."""
        # Views and triggers would run code of whoever made the file.
        for (name,) in self._query("SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')"):
            raise UsageError(
                f"{str(self.path)!r} holds {str(name)[:40]!r}, which is no table: posbench made no such store; "
                "name another with --store"
            )
        version = self._version()
        if version == SCHEMA_VERSION:
            return  # so that a store can be read where nothing can be written
        if must_exist:
            if not version:
                raise self._no_store()
            # From now on, a copy in memory is used: the file stays as it is, and may be read-only.
            with closing(self._connection) as file:
                self._connection = _connect(":memory:")
                file.backup(self._connection)
            self._in_memory = True
        with self._transaction():
            version = self._version()  # another process may have done it meanwhile
            if not version:
                if self._one("SELECT count(*) FROM sqlite_master"):
                    raise self._no_store()
                for statement in SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            elif version < SCHEMA_VERSION:
                self.check()
                for old in range(version, SCHEMA_VERSION):
                    for statement in MIGRATIONS[old]:
                        self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _no_store(self) -> UsageError:
        return UsageError(f"{str(self.path)!r} is a database, but not a posbench store: name another with --store")

    def _version(self) -> int:
        """Return the version of the file's schema, or 0 if posbench did not make it."""
        version = int(self._one("PRAGMA user_version")) if self._one("PRAGMA application_id") == APPLICATION_ID else 0
        if version > SCHEMA_VERSION:
            raise UsageError(f"store {str(self.path)!r} has schema {version}, newer than this posbench: update it")
        return version if version in (*MIGRATIONS, SCHEMA_VERSION) else 0

    def file(self, folder: Path) -> Path:
        """Return a file of the current schema with the same contents: this one, or a copy in a folder."""
        if not self._in_memory:
            return self.path
        with self._reporting_errors(), closing(sqlite3.connect(path := folder / self.path.name)) as copy:
            self._connection.backup(copy)
        return path

    def check(self) -> None:
        """Read all of the file, and compare its indices with its tables; raise a UsageError if it is damaged."""
        with self._reporting_errors():
            if (problem := str(self._one("PRAGMA integrity_check(1)"))) != "ok":
                # SQLite's message may have several lines, of which the last is the specific one.
                raise sqlite3.DatabaseError(f"malformed: {problem.splitlines()[-1]}")
            for table, _, parent, _ in self._query("PRAGMA foreign_key_check"):
                raise sqlite3.DatabaseError(f"malformed: {table} of which there are no {parent}")

    def _one(self, statement: str, *values: object) -> Any:
        """Return the first column of the first row."""
        return self._query(statement, *values)[0][0]

    def _query(self, statement: str, *values: object) -> list[Any]:
        with self._reporting_errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Turn errors of SQLite into UsageErrors of one line that names the fix."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise UsageError(
                f"store {str(self.path)!r} cannot be used ({one_line(error)}): check the folder, its rights and the "
                "disk, or name another with --store"
            ) from error
        except sqlite3.DatabaseError as error:
            problem, fix = f"{str(self.path)!r} is not a posbench store", "name another with --store"
            if "malformed" in str(error):
                problem, fix = f"store {str(self.path)!r} is damaged", f"take a copy of it, or {fix}"
            raise UsageError(f"{problem} ({one_line(error)}): {fix}") from error

    @contextmanager
    def _reporting_damage(self) -> Iterator[None]:
        """Report errors of SQLite, and report data that is not valid as damage of the file."""
        with self._reporting_errors():
            try:
                yield
            except (ValueError, TypeError) as error:
                raise sqlite3.DatabaseError(f"malformed: {one_line(error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit everything or nothing; the write lock is taken at once, so that it cannot be lost half-way."""
        with self._reporting_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _connect(where: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(where, timeout=60, isolation_level=None)
    for setting in ("foreign_keys = ON", "trusted_schema = OFF", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}")
    return connection
