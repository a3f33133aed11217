"""Selections of taps, parsed and resolved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.bench.taps import parse_taps, tap_numbers
from posbench.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", "all"), ("1", "1"), ("1,3", "1+3"), ("3,1", "1+3"), (" 2 , 2,10", "2+10"), ("01", "1")],
)
def test_taps_are_numbers_in_order_once(text: str, expected: str) -> None:
    assert parse_taps(text) == [expected]


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "0", "1,0", "-1", "+1", "1.5", "a", "All", "1+2", "٣", "²", "9" * 5000]
)
def test_what_are_no_taps(text: str) -> None:
    with pytest.raises(UsageError, match=r"--taps '.*' is none of all, each, all,each and numbers such as 1,3"):
        parse_taps(text)


@given(st.sets(st.integers(1, 9), min_size=1))
def test_taps_come_back_as_indices(numbers: set[int]) -> None:
    [taps] = parse_taps(",".join(map(str, numbers)))
    assert tap_numbers(taps, 9) == sorted(number - 1 for number in numbers)


def test_all_taps_are_all_there_are() -> None:
    assert tap_numbers("all", 4) == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="--taps names tap 5, but the network has 4: give numbers from 1 to 4"):
        tap_numbers("1+5", 4)


def test_each_tap_alone_is_kept_for_the_plan() -> None:
    assert parse_taps("each") == ["each"]
