"""Types of the options of a run, which convert and check the values that users write.

A converter returns what it cannot convert as it is, so that pydantic refuses it. A check raises ValueError with the end
of a sentence that begins with the option's name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from posbench.bench.config_file import LONGEST_NUMBER
from posbench.core.files import user_path

LARGEST_GPUS = 1024
LARGEST_SEED = 2**64 - 1  # the largest that torch's generators take

T = TypeVar("T")


def _split(value: object) -> object:
    """Return text separated by commas, or a list, as a tuple."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _wrap(value: object) -> object:
    """Return one text, or a list, as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _split_numbers(value: object) -> object:
    return _split(value) if isinstance(value, str | list | tuple) else (value,)


def _join_numbers(value: object) -> object:
    """Return one number, or a list of them, as text separated by commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _unique_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return _unique(tuple(stripped for name in names if (stripped := name.strip())))


def _parse_whole(value: object) -> object:
    # int() would also take "1_0" and "٣".
    if isinstance(value, str) and (text := value.strip()).isascii() and text.removeprefix("-").isdigit():
        return int(text) if len(text) <= LONGEST_NUMBER else value
    return value


def _parse_number(value: object) -> object:
    # float() would also take "nan", "1e9" and "1_0".
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9}", text := value.strip()):
        return float(text)
    return value


def _expand_path(value: object) -> object:
    return user_path(str(value)) if isinstance(value, str | Path) and str(value) else value


def _expand_file_name(value: object) -> object:
    """Return the path of a file as text; `-` stands for standard output."""
    path = value if value == "-" else _expand_path(value)
    return str(path) if isinstance(path, Path) else path


def _at_most(largest: int) -> AfterValidator:
    def check(value: int) -> int:
        if not 1 <= value <= largest:
            raise ValueError(f"is {value}: give 1 to {largest}")
        return value

    return AfterValidator(check)


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"{seed} is negative: seeds are whole numbers from 0")
    if seed > LARGEST_SEED:
        raise ValueError(f"{seed} is too large: give at most {LARGEST_SEED}")
    return seed


def parse_shard(text: str) -> tuple[int, int]:
    """Return the number of a shard, from 1, and the count of shards."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{text!r}: give i/n with i from 1 to n, such as 2/8")
    return number, count


def _check_shard(text: str) -> str:
    parse_shard(text)
    return text


def _check_gpus(count: float) -> float:
    if not 0 < count <= (LARGEST_GPUS if count.is_integer() else 1):
        raise ValueError(f"{count:g}: give a share of one, such as 0.5, or a whole number")
    return count


Text: TypeAlias = Annotated[str, Field(min_length=1)]
StorePath: TypeAlias = Annotated[Path, BeforeValidator(_expand_path)]
FileName: TypeAlias = Annotated[Text, BeforeValidator(_expand_file_name)]
#: Names, as a list or separated by commas.
AnyNames: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_unique_names)]
Names: TypeAlias = Annotated[AnyNames, Field(min_length=1)]
#: Names that may hold commas, as a list.
WholeNames: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_wrap), AfterValidator(_unique_names)]
Whole: TypeAlias = Annotated[int, BeforeValidator(_parse_whole)]
Seed: TypeAlias = Annotated[Whole, AfterValidator(_check_seed)]
Seeds: TypeAlias = Annotated[
    tuple[Seed, ...], BeforeValidator(_split_numbers), AfterValidator(_unique), Field(min_length=1)
]
Taps: TypeAlias = Annotated[Text, BeforeValidator(_join_numbers)]
ScoreAt: TypeAlias = Literal["grid", "image"]
Shard: TypeAlias = Annotated[Text, AfterValidator(_check_shard)]
Pixels: TypeAlias = Annotated[Whole, _at_most(4096)]
Crops: TypeAlias = Annotated[Whole, _at_most(1_000_000)]
Processes: TypeAlias = Annotated[Whole, _at_most(1024)]
Seconds: TypeAlias = Annotated[Whole, _at_most(10_000_000)]
GpuShare: TypeAlias = Annotated[float, BeforeValidator(_parse_number), AfterValidator(_check_gpus)]
