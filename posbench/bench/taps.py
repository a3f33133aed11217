"""Parses and resolves selections of taps."""

from __future__ import annotations

from posbench.core.errors import UsageError

#: In place of tap numbers: all taps of a backbone together, and each tap alone.
ALL, EACH = "all", "each"


def tap_numbers(taps: str, count: int, where: str = "the network") -> list[int]:
    """Return the indices, from 0, of the taps that a cell's `taps` names: `all`, or numbers from 1 joined by `+`.

    Raises:
        UsageError: if the network, which `where` names, has `count` taps and none of a number.
    """
    if taps == ALL:
        return list(range(count))
    numbers = [int(number) for number in taps.split("+")]
    if missing := [number for number in numbers if not 1 <= number <= count]:
        raise UsageError(f"--taps names tap {missing[0]}, but {where} has {count}: give numbers from 1 to {count}")
    return [number - 1 for number in numbers]


def parse_taps(text: str) -> list[str]:
    """Parse `--taps`, `all`, `each`, both, or numbers for one readout on a subset, to a cell's `taps`, or `each`.

    Raises:
        UsageError: if the text is none of these.
    """
    numbers = [number.strip() for number in text.split(",")]
    if set(numbers) <= {ALL, EACH}:
        return list(dict.fromkeys(numbers))
    # Python refuses to read numbers of thousands of digits.
    if not all(number.isascii() and number.isdigit() and len(number) < 9 and int(number) > 0 for number in numbers):
        raise UsageError(f"--taps {text!r} is none of all, each, all,each and numbers such as 1,3")
    return ["+".join(str(number) for number in sorted({int(number) for number in numbers}))]
