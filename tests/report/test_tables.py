"""Tables that fit: narrowed columns, blocks of columns, and that nothing is lost."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from posbench.report.tables import Column, Sheet, blocks, fitted
from posbench.report.wrapping import pieces
from tests.report.test_terminal import printed

NETWORKS = [f"resnet{n}\nimagenet:timm/resnet{n}.a1_in1k" for n in (18, 34, 50, 101)]
BOARD = Sheet(
    [Column("target"), Column("padding"), *(Column(name, right=True, whole=True) for name in NETWORKS)],
    [
        [["H", "zero", *(["0.68 ±0.14"] * 4)], ["", "circular", *(["0.26 ±0.18 ≈"] * 4)]],
        [["V", "zero", *(["0.82 ±0.08"] * 4)]],
    ],
    keys=2,
    title="spc on photos",
    caption="higher is better",
)


def test_the_widest_give_way_first_and_not_below_what_may_not_be_broken() -> None:
    assert fitted([6, 8, 47, 11], [6, 8, 13, 11], 72) == [6, 8, 47, 11]
    assert fitted([6, 8, 47, 11], [6, 8, 13, 11], 67) == [6, 8, 42, 11]
    assert fitted([20, 30, 30], [5, 5, 5], 61) == [20, 21, 20]
    assert fitted([20, 30, 30], [5, 29, 5], 60) == [16, 29, 15]
    # Without room even for the least, the widest go below it.
    assert fitted([64, 4], [64, 4], 40) == [36, 4]


def test_a_table_that_fits_is_one_and_unchanged() -> None:
    text = printed(BOARD, width=200)
    assert text.splitlines()[0] == "spc on photos"
    assert text.count("┏") == 1
    assert text.splitlines()[-1] == "higher is better"
    assert "imagenet:timm/resnet101.a1_in1k" in text


def test_a_table_that_does_not_fit_is_split_into_blocks_that_repeat_what_lines_are() -> None:
    split = blocks(BOARD, 60)
    assert [[cells.column.heading[:8] for cells in block] for block in split] == [
        ["target", "padding", "resnet18", "resnet34"],
        ["target", "padding", "resnet50", "resnet10"],
    ]
    text = printed(BOARD, width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("spc on photos") == text.count("higher is better") == 1
    assert text.count("┃ target ┃ padding") == 2
    assert text.count("0.26 ±0.18 ≈") == 4


def test_keys_without_room_are_columns_and_rows_are_numbered() -> None:
    long = [Column(f"{name}-{'x' * 20}") for name in "abc"]
    sheet = Sheet([*long, Column("n", whole=True)], [[["1", "2", "3", "4"]], [["5", "6", "7", "8"]]], keys=3)
    split = blocks(sheet, 60)
    assert [block[0].column.heading for block in split] == ["row"] * len(split)
    assert [cell.plain for cells in split[0][0].sections for cell in cells] == ["1", "2"]
    assert [cells.column.heading for block in split for cells in block[1:]] == [c.heading for c in sheet.columns]


def test_titles_and_captions_have_room_beside_a_narrow_table() -> None:
    caption = "±: 95 % interval over 15 test photographs; 256 training crops"
    lines = printed(Sheet([Column("a")], [[["1"]]], caption=caption), width=80).splitlines()
    assert lines[-2:] == ["±: 95 % interval over 15 test photographs; 256 training", "crops"]


def test_brackets_are_text_and_styles_are_kept() -> None:
    sheet = Sheet([Column("[red]")], [[[Text("[/bold] 0.91", style="bold")]]], title="[b]", caption="[/]")
    text = printed(sheet, force_terminal=True, color_system="standard", no_color=False)
    for piece in ("[red]", "\x1b[1m[/bold] 0.91", "[b]", "[/]"):
        assert piece in text


def test_in_ascii_signs_take_the_room_that_they_need() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=40).print(
        Sheet([Column("x → y"), Column("±", right=True, whole=True)], [[["é", "0.1 ±0.2 ≈"]]], caption="≈ alike")
    )
    stream.seek(0)
    lines = stream.read().splitlines()
    assert lines[1].split("|")[1].strip() == "x -> y"
    assert [cell.strip() for cell in lines[3].split("|")[1:3]] == ["\\xe9", "0.1 +-0.2 ~"]
    assert lines[-1] == "~ alike"
    assert len({len(line) for line in lines[:-1]}) == 1


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    text = printed(Sheet([Column("name")], [[["\x1b[31mred\x07"]]], title="a\x1b]0;b\x07"), width=60)
    assert "\\x1b[31mred\\x07" in text
    assert "a\\x1b]0;b\\x07" in text
    assert "\x1b" not in text


words = st.text(st.sampled_from("abc019é漢-_:/@.,"), min_size=1, max_size=14)
texts = st.lists(words, max_size=4).map(" ".join)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@given(st.data())
def test_no_table_is_wider_than_the_terminal_and_none_loses_a_piece(width: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    columns = [Column(data.draw(texts), whole=data.draw(st.booleans())) for _ in range(count)]
    keys, boxed = data.draw(st.integers(1, max(1, count // 2))), data.draw(st.booleans())
    rows = data.draw(st.lists(st.lists(texts, min_size=count, max_size=count), max_size=3))
    # Scores are short: no cell that may not be broken is as wide as a terminal.
    rows = [[cell[:16] if column.whole else cell for cell, column in zip(row, columns, strict=True)] for row in rows]
    text = printed(Sheet(columns, [rows], keys, boxed=boxed), width=width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    shown, wanted = Counter(text.translate(dict.fromkeys(map(ord, " \n┏━┳┓┃┡╇┩│└┴┘├┼┤─╰╯╭╮")))), Counter[str]()
    for cell in [*(column.heading for column in columns), *(cell for row in rows for cell in row)]:
        for piece in pieces(cell):
            assert piece in text
        wanted.update(cell.replace(" ", ""))
    assert all(shown[character] >= times for character, times in wanted.items())
