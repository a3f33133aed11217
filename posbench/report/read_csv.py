"""Tables of cells that posbench wrote, read back as what they are: text from somewhere that nobody vouches for."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posbench.bench.row import FIRST, LAST, Row
from posbench.core.errors import UsageError
from posbench.core.files import regular_file
from posbench.report.rows import FORMULA
from posbench.store import validation as validation

#: A table of a hundred thousand cells has some fifty megabytes.
LARGEST = 2**28
_WHOLE = ("image_size", "n_train", "n_test", "n_test_photos", "seed")
_NUMBERS = ("degenerate", "reach", "seconds")
_OPTIONAL = ("control", "control_of", "verdict")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?")


def from_csv(path: Path) -> list[Row]:
    """The rows of a table that `leaderboard.to_csv` wrote, as they were.

    Raises:
        UsageError: naming the file and, where there is one, the row and the column, if it is no such table.
    """
    header, body = _lines(path)
    _check_header(header, path)
    read: list[Row] = []
    known: dict[object, int] = {}
    for number, line in enumerate(body, 2):
        where = f"{str(path)!r}, row {number}"
        if len(line) != len(header):
            raise UsageError(f"{where}: {len(line)} fields, where the header has {len(header)}")
        row = {name: _value(name, text, where) for name, text in zip(header, line, strict=True)}
        _check_row(row, where)
        if (first := known.setdefault(row["cell_id"], number)) != number:
            raise UsageError(f"{where}: the cell of row {first} again: keep one")
        read.append(Row.from_columns(row))
    return read


def _lines(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        # `utf-8-sig` as a spreadsheet may have put its mark before the header.
        text = regular_file(path, LARGEST).decode("utf-8-sig")
        header, *body = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{str(path)!r} is no leaderboard ({reason}): give a CSV that posbench wrote") from error
    return header, body


def _check_header(header: Sequence[str], path: Path) -> None:
    needed = [*FIRST, *LAST]
    if missing := [name for name in needed if name not in header]:
        raise UsageError(f"{str(path)!r} is no leaderboard: it lacks the column {missing[0]!r}")
    if len(set(header)) < len(header):
        raise UsageError(f"{str(path)!r} has two columns of one name: keep one")
    # What else there is are metrics, each with the bounds of its interval.
    more = [name for name in header if name not in needed]
    metrics = {name for name in more if {f"{name}_lo", f"{name}_hi"} <= {*more}}
    bounds = {f"{name}_{bound}" for name in metrics for bound in ("lo", "hi")}
    if strange := [name for name in more if name not in metrics | bounds]:
        raise UsageError(
            f"{str(path)!r} has a column {strange[0][:40]!r} that is no metric with its interval: remove it"
        )


def _value(name: str, text: str, where: str) -> str | int | float | None:
    """What a field says.

    Raises:
        UsageError: if a number is none.
    """
    if name in (*FIRST, *LAST) and name not in (*_WHOLE, *_NUMBERS):
        harmless = text.startswith("'") and text.lstrip("'").startswith(FORMULA)
        said = text[1:] if harmless else text
        return said or (None if name in _OPTIONAL else "")
    if not text:
        return None
    # int() and float() would also take "1_0", "inf" and digits of other scripts.
    if not (_INTEGER if name in _WHOLE else _FLOAT).fullmatch(text):
        raise UsageError(f"{where}: {name} is {text[:40]!r}, not a {'whole ' if name in _WHOLE else ''}number")
    return int(text) if name in _WHOLE else float(text)


def _check_row(row: Mapping[str, Any], where: str) -> None:
    ours = {name: row[name] for name in (*FIRST, *LAST)}
    try:
        validation.fields(ours)
        for name, value in row.items():
            if isinstance(value, str):
                validation.field(name, validation.plain, value)
            elif name not in ours:
                validation.field(name, validation.or_none(validation.number), value)
            if f"{name}_lo" in row:
                validation.field(name, validation.interval, value, row[f"{name}_lo"], row[f"{name}_hi"])
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
