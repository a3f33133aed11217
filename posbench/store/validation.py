"""What a stored result must look like, whoever wrote it: stores, published folders and tables travel unvouched for.

Whatever does not look so is a ValueError.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite, isqrt
from typing import Any, TypeVar

from posbench.bench.records import CellRecord, Example, JobRun, Measurement, MeasurementRecord, Outcome, Score
from posbench.core.text import replace_unprintable
from posbench.plugin.components import BOUNDS, NAME

STATUS = ("ok", "skipped", "failed")
#: What an identity is made of that tables show: its parts, and in each of them texts.
_OF_JOB = {
    **dict.fromkeys(("backbone", "padding"), ("name", "version")),
    "weights": ("label", "sha256"),
    **dict.fromkeys(("images", "test_images"), ("label", "version", "sha256")),
}
_OF_CELL = _OF_JOB | dict.fromkeys(("target", "readout"), ("name", "version"))
_TAPS = re.compile(r"all|[0-9]{1,8}(\+[0-9]{1,8})*")
_TAP = re.compile(r"all|[0-9]{1,8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Whole numbers have no end in JSON, and one in a store and in a float.
_LARGEST = 2**53
_Vetted = TypeVar("_Vetted")


def cleaned(text: str) -> str:
    """Text with a space for each character that `plain` would not have."""
    return replace_unprintable(text, lambda _: " ", keep="\n\t")


def plain(value: Any) -> str:
    """Text without what a terminal would obey, or UTF-8 has no form of."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    if cleaned(value) != value:
        raise ValueError(f"control characters in {value[:40]!r}")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.40} is no number")
    if not -_LARGEST < value < _LARGEST if isinstance(value, int) else not isfinite(value):
        raise ValueError(f"{value!r:.40} is no finite number")
    return value


def amount(value: Any) -> float:
    """A finite number that is not negative."""
    if number(value) < 0:
        raise ValueError(f"{value} is negative")
    return float(value)


def share(value: Any) -> float:
    """A number from 0 to 1."""
    if amount(value) > 1:
        raise ValueError(f"{value} is no share")
    return float(value)


def count(value: Any) -> int:
    """A whole number that is not negative."""
    if not isinstance(value, int):
        raise ValueError(f"{value!r:.40} is no count")
    amount(value)
    return value


def positive(value: Any) -> int:
    """A whole number from 1 on."""
    if count(value) < 1:
        raise ValueError("0 is not positive")
    return int(value)


def moment(value: Any) -> str:
    """A time, ISO 8601."""
    datetime.fromisoformat(plain(value))
    return str(value)


def status(value: Any) -> str:
    """What became of a cell or a reading."""
    if value not in STATUS:
        raise ValueError(f"{value!r:.40}, not one of {', '.join(STATUS)}")
    return str(value)


def metric(value: Any) -> str:
    """The name of a metric, which is that of a column, with those of its interval beside it."""
    if not NAME.match(plain(value)) or value.endswith(BOUNDS):
        raise ValueError(f"{value[:40]!r} is no name of a metric")
    return str(value)


def digest(value: Any) -> str:
    """A SHA-256 in hexadecimal."""
    return _matching(_DIGEST, value, "not 64 hexadecimal digits")


def _matching(pattern: re.Pattern[str], value: Any, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r:.40}, {what}")
    return value


def or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same check, which None passes, too."""
    return lambda value: None if value is None else check(value)


#: By the names that fields of a cell, of its scores and of readings have everywhere, in tables as well.
FIELDS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("cell_id", "job_id"), digest),
    **dict.fromkeys(("reason", "posbench_version", "version"), plain),
    **dict.fromkeys(("value", "lo", "hi"), or_none(number)),
    **dict.fromkeys(("image_size", "test_size", "n_train", "n_test"), positive),
    "run_id": count,
    "status": status,
    "metric": metric,
    "tap": lambda value: _matching(_TAP, value, "which is no tap"),
    "taps": lambda value: _matching(_TAPS, value, "which are no taps"),
    "n_test_photos": or_none(count),
    "degenerate": or_none(share),
    "reach": or_none(amount),
    "seconds": amount,
    "created": moment,
}


def fields(one: object) -> None:
    """Hold every field of a dataclass, or of a row, that has a check against it."""
    for name, value in (one if isinstance(one, dict) else vars(one)).items():
        if name in FIELDS:
            field(name, FIELDS[name], value)


def field(name: str, check: Callable[..., Any], *values: Any) -> None:
    """Hold what stands under a name against a check."""
    try:
        check(*values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def interval(value: Any, lo: Any, hi: Any) -> None:
    """A value within its interval, or one without."""
    if (lo is None) != (hi is None) or (lo is not None and not (value is not None and lo <= value <= hi)):
        raise ValueError(f"{value}, which its interval, {lo} to {hi}, does not hold")


def run(one: JobRun) -> JobRun:
    """One time that a job was computed."""
    fields(one)
    anything(one.provenance)
    return one


def record(one: CellRecord) -> CellRecord:
    """A cell."""
    fields(one)
    outcome(one.outcome)
    return one


def outcome(one: Outcome) -> Outcome:
    """What became of a cell."""
    fields(one)
    _identity(one.identity, _OF_CELL)
    maps(one.mean_map)
    for score in one.scores:
        field("value", number, score.value)
        _scored(score)
    if twice := [name for name, times in Counter((s.metric, s.version) for s in one.scores).items() if times > 1]:
        raise ValueError(f"two scores by {twice[0]}")
    return one


def job_record(one: MeasurementRecord) -> MeasurementRecord:
    """A reading of a job."""
    fields(one)
    _identity(one.identity, _OF_JOB)
    reading(one.reading)
    return one


def reading(one: Measurement) -> Measurement:
    """A reading by itself."""
    _scored(one)
    if one.picture is not None or one.columns is not None:
        maps(one.picture, count(one.columns))
    return one


def _scored(one: Score | Measurement) -> None:
    fields(one)
    interval(one.value, one.lo, one.hi)
    by_photograph(one.by_photograph)


def example(one: Example) -> Example:
    """What was drawn for one image."""
    plain(one.photograph)
    _square(one.thumbnail, 3, "a thumbnail")
    _square(one.drawn, 2, "a small map")
    _finite(one.drawn, "<f2")
    return one


def maps(content: Any, columns: int | None = None) -> bytes | None:
    """A map: float32, row by row, of so many columns, or square."""
    if content is None:
        return None
    cells = _square(content, 4, "a map") if columns is None else _whole(content, 4, "a map")
    if columns is not None and (columns < 1 or cells % columns):
        raise ValueError(f"a map of {len(content)} bytes")
    _finite(content, "<f4")
    return bytes(content)


def _finite(content: bytes, kind: str) -> None:
    import numpy as np

    if not np.isfinite(np.frombuffer(content, kind)).all():
        raise ValueError("a map that is not finite")


def _whole(content: Any, size: int, what: str) -> int:
    """How many cells of so many bytes there are."""
    if not isinstance(content, bytes) or not content or len(content) % size:
        raise ValueError(f"{what} of {len(content) if isinstance(content, bytes) else 'no'} bytes")
    return len(content) // size


def _square(content: Any, size: int, what: str) -> int:
    cells = _whole(content, size, what)
    if isqrt(cells) ** 2 != cells:
        raise ValueError(f"{what} of {len(content)} bytes")
    return cells


def by_photograph(found: Any) -> Mapping[str, float]:
    """What each photograph scored."""
    if not isinstance(found, Mapping):
        raise ValueError("photographs without numbers")
    "".join(found).encode()
    try:
        finite = {*map(type, found.values())} <= {int, float} and all(map(isfinite, found.values()))
    except OverflowError:  # of whole numbers, which have no end in JSON
        finite = False
    if not finite:
        raise ValueError("a photograph without a finite number")
    return found


def _identity(found: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]]) -> None:
    """What a cell or a job is made of: nothing may be missing that tables show or files are named by."""
    anything(found)
    for name, keys in parts.items():
        part = found.get(name)
        for key in keys:
            if not isinstance(part, Mapping) or not isinstance(part.get(key), str):
                raise ValueError(f"an identity without the {key} of its {name}")
            plain(part[key])
    of_cell = ("taps", "seed", "score_at") if "target" in parts else ()
    for name in ("image_size", "precision", "n_train", "n_test", *of_cell):
        if name not in found:
            raise ValueError(f"an identity without {name}")
    fields(dict(found))
    for name in ("precision", "score_at", "control", "control_of"):
        if name in found:
            plain(found[name])
    seed = found.get("seed")
    if isinstance(seed, bool) or not (seed is None or (isinstance(seed, int) and 0 <= seed < 2**64)):
        raise ValueError(f"{seed!r:.40} is no seed")


def anything(found: Any) -> dict[str, Any]:
    """An object that JSON and UTF-8 have a form of: with finite numbers alone, and not nested without end."""
    try:
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("JSON that nests too deeply") from None
    return _object(found)


def parsed(text: str) -> dict[str, Any]:
    """An object, from JSON."""
    try:
        return _object(json.loads(text))
    except RecursionError:
        raise ValueError("JSON that nests too deeply") from None


def _object(found: _Vetted) -> _Vetted:
    if not isinstance(found, dict):
        raise ValueError("JSON that is no object")
    return found
