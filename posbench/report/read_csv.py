"""Read tables of cells back that posbench wrote. Files come from anywhere, so every field is validated."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

from typing_extensions import TypedDict

from posbench.bench.field_types import FiniteFloat, check_interval, check_metric
from posbench.bench.row import FIRST, LAST, Row
from posbench.core.errors import UsageError
from posbench.core.files import read_regular_file
from posbench.plugin.control import ControlCatalogue
from posbench.report.rows import FORMULA
from posbench.store.validation import validated

#: The size limit of a table, in bytes: one of a hundred thousand cells has some fifty megabytes.
LARGEST = 2**28
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?")


_ANNOTATED, _PLAIN = get_type_hints(Row, include_extras=True), get_type_hints(Row)
#: The columns that every table has, all that are not a metric, with the types of their fields.
_COLUMNS = {name: _ANNOTATED[name] for name in (*FIRST, *LAST)}
_INTEGERS = tuple(name for name in _COLUMNS if int in (_PLAIN[name], *get_args(_PLAIN[name])))
_FLOATS = tuple(name for name in _COLUMNS if float in (_PLAIN[name], *get_args(_PLAIN[name])))
#: Text that may be missing.
_OPTIONAL = tuple(name for name in _COLUMNS if get_args(_PLAIN[name]) == (str, NoneType))
_Columns: Any = cast(Any, TypedDict)("_Columns", _COLUMNS)
#: Values and bounds of metrics, by column.
_Scores = dict[str, FiniteFloat | None]


def from_csv(path: Path, controls: ControlCatalogue) -> list[Row]:
    """Return the rows of a table that `rows.to_csv` wrote, as they were.

    Raises:
        UsageError: naming the file and, where there is one, the row and the column, if it is no such table.
    """
    header, body = _lines(path)
    metrics = _metrics(header, path)
    rows: list[Row] = []
    first: dict[str, int] = {}
    for number, line in enumerate(body, 2):
        where = f"{str(path)!r}, row {number}"
        if len(line) != len(header):
            raise UsageError(f"{where}: {len(line)} fields, where the header has {len(header)}")
        values = {name: _value(name, text, where) for name, text in zip(header, line, strict=True)}
        try:
            columns = validated(_Columns, values)
            scores = validated(_Scores, {name: value for name, value in values.items() if name not in _COLUMNS})
            _check_intervals(scores, metrics)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        if (before := first.setdefault(columns["cell_id"], number)) != number:
            raise UsageError(f"{where}: the cell of row {before} again: keep one")
        rows.append(Row.from_columns({**columns, **scores}, controls))
    return rows


def _lines(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the fields of the header and of each row."""
    try:
        # `utf-8-sig` as a spreadsheet may have put its mark before the header.
        text = read_regular_file(path, LARGEST).decode("utf-8-sig")
        header, *body = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{str(path)!r} is no leaderboard ({reason}): give a CSV that posbench wrote") from error
    return header, body


def _metrics(header: Sequence[str], path: Path) -> list[str]:
    """Return the metrics among the columns, each of which has the bounds of its interval beside it."""
    if missing := [name for name in _COLUMNS if name not in header]:
        raise UsageError(f"{str(path)!r} is no leaderboard: it lacks the column {missing[0]!r}")
    if len(set(header)) < len(header):
        raise UsageError(f"{str(path)!r} has two columns of one name: keep one")
    others = [name for name in header if name not in _COLUMNS]
    metrics = [name for name in others if _is_metric(name) and {f"{name}_lo", f"{name}_hi"} <= {*others}]
    bounds = {f"{name}_{bound}" for name in metrics for bound in ("lo", "hi")}
    if unknown := [name for name in others if name not in bounds.union(metrics)]:
        raise UsageError(
            f"{str(path)!r} has a column {unknown[0][:40]!r} that is no metric with its interval: remove it"
        )
    return metrics


def _is_metric(name: str) -> bool:
    try:
        check_metric(name)
    except ValueError:
        return False
    return True


def _value(name: str, text: str, where: str) -> str | int | float | None:
    """Return the value of a field.

    Raises:
        UsageError: if a number is none.
    """
    if name in _COLUMNS and name not in (*_INTEGERS, *_FLOATS):
        # `to_csv` puts an apostrophe before text that a spreadsheet would run as a formula.
        escaped = text.startswith("'") and text.lstrip("'").startswith(FORMULA)
        return (text[1:] if escaped else text) or (None if name in _OPTIONAL else "")
    if not text:
        return None
    # int() and float() would also take "1_0", "inf" and digits of other scripts.
    if not (_INTEGER if name in _INTEGERS else _FLOAT).fullmatch(text):
        raise UsageError(f"{where}: {name} is {text[:40]!r}, not a {'whole ' if name in _INTEGERS else ''}number")
    return int(text) if name in _INTEGERS else float(text)


def _check_intervals(scores: Mapping[str, float | None], metrics: Sequence[str]) -> None:
    for metric in metrics:
        try:
            check_interval(scores[metric], scores[f"{metric}_lo"], scores[f"{metric}_hi"])
        except ValueError as error:
            raise ValueError(f"{metric}: {error}") from None
