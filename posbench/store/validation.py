"""Validate what comes from outside: stores, published folders and tables.

`bench.field_types` and `bench.records` define what is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from posbench.bench.field_types import STATUSES, UNFIT

_Type = TypeVar("_Type")

#: Reasons by the type of pydantic's error; `{value}` is the value. Our own checks give their reasons themselves.
_REASONS = {
    "missing": "missing",
    "string_type": "{value} is no text",
    "string_unicode": "control characters in {value}",
    "float_type": "{value} is no number",
    "finite_number": "{value} is no finite number",
    "int_type": "{value} is no whole number",
    "bytes_type": "{value} is no binary data",
    "dict_type": "{value} is no object",
    "list_type": "{value} is no list",
    "greater_than": "{value} is not positive",
    "greater_than_equal": "{value} is negative",
    "less_than": "{value} is too large",
    "less_than_equal": "{value} is no share",
    "literal_error": f"{{value}}, not one of {', '.join(STATUSES)}",
}
#: Validators by type, built at their first use: commands that read no results do not wait for them.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
#: Fields that hold other records; messages do not name them.
_RECORDS = ("outcome", "scores", "measurement")


def validated(kind: type[_Type], value: object) -> _Type:
    """Return a record of a type, or a TypedDict, from its fields by name or from a record to check.

    Raises:
        ValueError: "FIELD: reason", if a field is not valid.
    """
    adapter: TypeAdapter[_Type] = _adapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(_message(error.errors(include_url=False)[0])) from None


def _message(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    elif error["type"] == UNFIT:
        reason = error["msg"]
    else:
        reason = _REASONS.get(error["type"], "{value} is not valid")
    if "{value}" in reason:
        reason = reason.replace("{value}", f"{error['input']!r:.40}")
    field = ".".join(name for name in error["loc"] if isinstance(name, str) and name not in _RECORDS)
    return f"{field}: {reason}" if field else reason


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if the text is no JSON, or holds NaN, lone surrogates or more than 200 nested levels.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None
