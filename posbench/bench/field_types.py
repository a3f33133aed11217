"""Types of the fields of results, with the checks that pydantic makes.

A type checker sees plain types. The checks run where data comes from outside: stores, published folders and tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isqrt
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, with_config
from pydantic_core import core_schema
from typing_extensions import TypedDict

from posbench.core.text import replace_unprintable
from posbench.plugin.components import BOUNDS, NAME

#: The type of pydantic's error whose message is a reason of ours.
UNFIT = "unfit"


def _reason(reason: str) -> GetPydanticSchema:
    """Return an annotation with the reason in error messages, in which `{value}` is the value."""
    return GetPydanticSchema(
        lambda kind, handler: core_schema.custom_error_schema(
            handler(kind), custom_error_type=UNFIT, custom_error_message=reason
        )
    )


def _schema_of(kind: Any) -> GetPydanticSchema:
    """Return an annotation that validates as another type than the static one."""
    return GetPydanticSchema(lambda _, handler: handler.generate_schema(kind))


def replace_control_characters(text: str) -> str:
    """Return the text with a space for each character that `PlainText` forbids."""
    return replace_unprintable(text, lambda _: " ", keep="\n\t")


def _check_plain(text: str) -> str:
    if replace_control_characters(text) != text:
        raise ValueError(f"control characters in {text[:40]!r}")
    return text


def _check_moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def check_metric(text: str) -> str:
    """Return the text, or raise ValueError if it cannot be the name of a metric and of its column."""
    if not NAME.match(text) or text.endswith(BOUNDS):
        raise ValueError(f"{text[:40]!r} is no name of a metric")
    return text


Status: TypeAlias = Literal["ok", "skipped", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

#: Text without control characters, which a terminal would obey, and lone surrogates.
PlainText = Annotated[str, Field(strict=True), AfterValidator(_check_plain)]
#: A time, ISO 8601.
Moment = Annotated[PlainText, AfterValidator(_check_moment)]
#: The name of a metric: it is the name of a column, next to those of the bounds of its interval.
MetricName = Annotated[PlainText, AfterValidator(check_metric)]
#: A SHA-256 in hexadecimal.
Digest = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$"), _reason("{value}, not 64 hexadecimal digits")]
#: The taps that a readout is fitted on: `all`, or numbers.
Taps = Annotated[
    str, Field(strict=True, pattern=r"^(all|[0-9]{1,8}(\+[0-9]{1,8})*)$"), _reason("{value}, which are no taps")
]
#: `all`, or the number of a tap.
Tap = Annotated[str, Field(strict=True, pattern="^(all|[0-9]{1,8})$"), _reason("{value}, which is no tap")]

FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegativeFloat = Annotated[FiniteFloat, Field(ge=0)]
#: From 0 to 1.
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
# JSON has whole numbers of any size, but SQLite and floats do not.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
PositiveInt = Annotated[int, Field(strict=True, gt=0, lt=2**53)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**64)]
#: A value for each photograph, by its name.
ByPhotograph = Annotated[
    Mapping[str, float], _schema_of(dict[str, FiniteFloat]), _reason("a photograph without a finite number")
]


def _array(size: int, what: str, kind: str = "", *, square: bool = True) -> Callable[[bytes], bytes]:
    """Return a check of the bytes of an array, of cells of `size` bytes that must be finite if `kind` is given."""

    def check(content: bytes) -> bytes:
        cells, rest = divmod(len(content), size)
        if rest or not cells or (square and isqrt(cells) ** 2 != cells):
            raise ValueError(f"{what} of {len(content)} bytes")
        if kind:
            import numpy as np

            if not np.isfinite(np.frombuffer(content, kind)).all():
                raise ValueError("a map that is not finite")
        return content

    return check


_Bytes = Annotated[bytes, Field(strict=True)]
#: float32 little-endian, a square map row by row.
SquareMap = Annotated[_Bytes, AfterValidator(_array(4, "a map", "<f4"))]
#: float32 little-endian, row by row.
Picture = Annotated[_Bytes, AfterValidator(_array(4, "a map", "<f4", square=False))]
#: float16 little-endian, a square map row by row.
SmallMap = Annotated[_Bytes, AfterValidator(_array(2, "a small map", "<f2"))]
#: uint8 red, green, blue, a square image row by row.
Thumbnail = Annotated[_Bytes, AfterValidator(_array(3, "a thumbnail"))]


def check_interval(value: float | None, lo: float | None, hi: float | None) -> None:
    """Raise ValueError if a value does not lie within its interval, or only one bound is missing."""
    if lo is None and hi is None:
        return
    if value is None or lo is None or hi is None or not lo <= value <= hi:
        raise ValueError(f"{value}, which its interval, {lo} to {hi}, does not hold")


def _check_json(value: Any) -> Any:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("JSON that nests too deeply") from None
    return value


#: An object that is valid JSON in UTF-8: finite numbers, no lone surrogates, limited nesting.
JsonObject = Annotated[dict[str, Any], BeforeValidator(_check_json)]


class _Component(TypedDict):
    name: PlainText
    version: PlainText


class _Weights(TypedDict):
    label: PlainText
    sha256: PlainText


class _Images(TypedDict):
    label: PlainText
    version: PlainText
    sha256: PlainText


@with_config({"extra": "allow"})
class _Job(TypedDict):
    backbone: _Component
    weights: _Weights
    padding: _Component
    images: _Images
    test_images: _Images
    image_size: PositiveInt
    test_size: NotRequired[PositiveInt]
    precision: PlainText
    n_train: PositiveInt
    n_test: PositiveInt


@with_config({"extra": "allow"})
class _Cell(_Job):
    target: _Component
    readout: _Component
    taps: Taps
    seed: Seed | None
    score_at: PlainText
    control: NotRequired[PlainText]
    control_of: NotRequired[PlainText]


#: The parts of a job or a cell that tables show and files are named by; further keys are kept.
JobIdentity = Annotated[dict[str, Any], _schema_of(_Job), BeforeValidator(_check_json)]
CellIdentity = Annotated[dict[str, Any], _schema_of(_Cell), BeforeValidator(_check_json)]
