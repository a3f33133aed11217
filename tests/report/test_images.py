"""Maps as pictures in the terminal, in files and on pages."""

from __future__ import annotations

import base64
import io
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from posbench.core.errors import MissingError
from posbench.report.images import Drawing, Map, brightness, data_uri, png, reduced
from tests.report.test_terminal import printed

RISING: Map = [[0.0, 0.25], [0.75, 1.0]]
IN_COLOUR = {"force_terminal": True, "color_system": "truecolor", "no_color": False}


def test_shades_are_on_one_scale_which_is_said_once() -> None:
    # On the scale from 0 to 4 the second map holds the darkest quarter alone.
    text = printed(Drawing([("drawn", [[4.0, 3.0], [2.0, 0.0]]), ("target", RISING)]))
    lines = text.splitlines()
    assert lines[0] == "0.00 (dark) to 4.00 (bright), in shades of ' ░▒▓█'"
    assert lines[1].split() == ["drawn", "target"]
    assert lines[2].startswith("██▓▓")
    assert lines[3].startswith("▒▒  ")
    assert lines[3].rstrip().endswith("░░░░")
    assert text.count("(dark)") == 1


def test_scales_of_their_own_are_said_below_each_title() -> None:
    text = printed(Drawing([("one", RISING)], common=False)) + printed(Drawing([("two", [[4.0, 0.0]])], common=False))
    assert "0.00 (dark) to 4.00" in " ".join(text.split())
    assert text.count("(bright)") == 2


def test_a_flat_map_is_drawn_in_the_middle() -> None:
    assert printed(Drawing([("flat", [[0.3, 0.3], [0.3, 0.3]])])).count("▒▒▒▒") == 2


@pytest.mark.parametrize("side", [4, 5])
def test_in_colour_a_line_holds_two_rows(side: int) -> None:
    values = [[float(row)] * side for row in range(side)]
    text = printed(Drawing([("rows", values), ("again", values)]), **IN_COLOUR)
    lines = [line for line in text.splitlines() if "▀" in line]
    assert len(lines) == (side + 1) // 2
    assert all(line.count("▀") == 2 * side for line in lines)
    assert "38;2;0;0;0" in lines[0]
    assert "8;2;255;255;255" in lines[-1]
    # Of an odd number of rows, the last is not drawn twice.
    assert ("48;2" in lines[-1]) == (side % 2 == 0)


@pytest.mark.parametrize("options", [{"no_color": True}, {"color_system": "standard"}, {"color_system": None}])
def test_without_enough_colours_maps_are_in_shades(options: dict[str, object]) -> None:
    text = printed(Drawing([("drawn", RISING)]), **(IN_COLOUR | options))
    assert "▀" not in text
    assert "▓▓██" in text


def test_in_ascii_there_are_ten_shades() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    from rich.console import Console

    Console(file=stream, width=80).print(Drawing([("été ±", [[0.0, 1 / 9], [0.5, 1.0]])]))
    stream.seek(0)
    lines = stream.read().splitlines()
    assert r"\xe9t\xe9 +-" in lines[1]
    assert lines[2].rstrip() == "  .."
    assert lines[3].rstrip() in ("==@@", "++@@")  # a half lies between two shades


def test_a_mean_of_four_is_drawn_where_there_is_no_room_for_each() -> None:
    values = [[float(4 * row + column) for column in range(4)] for row in range(4)]
    # The first block holds 0, 1, 4, 5.
    assert reduced(values, 2) == [[2.5, 4.5], [10.5, 12.5]]
    assert reduced(values, 1) is values
    # An odd side leaves smaller blocks at the end.
    assert reduced([[1.0, 2.0, 5.0]] * 3, 2) == [[1.5, 5.0], [1.5, 5.0]]
    wide = [[0.0, 1.0] * 40] * 80
    lines = printed(Drawing([("wide", wide)]), width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "3×3" in "".join(lines)  # 160 characters into 60


def test_maps_without_room_beside_each_other_stand_below_each_other() -> None:
    side = [[0.0] * 26 for _ in range(26)]
    pair = Drawing([("one", side), ("two", side)])
    beside, below = (printed(pair, width=width).splitlines() for width in (120, 80))
    assert len(beside) == 1 + 27
    assert len(below) == 1 + 2 * 27
    assert beside[1].split() == ["one", "two"]


def test_levels_are_between_the_limits() -> None:
    assert brightness([[1.0, 2.0, 3.0]], 1.0, 3.0) == [[0.0, 0.5, 1.0]]
    assert brightness([[0.0]], 0.0, 0.0) == [[0.5]]


def test_a_png_holds_both_maps_in_the_same_colours() -> None:
    half, whole = [[0.0, 0.5], [0.5, 0.0]], [[0.0, 1.0], [1.0, 0.0]]
    # A dollar sign and brackets are text; nothing of a name is a formula.
    content = png([("a $ b", half), ("[red]$\\frac", whole)], "net (random:0), padding $zero\nSPC 0.50", "value")
    rgb = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    drawn = {tuple(int(v) for v in colour) for colour in rgb.reshape(-1, 3)[::7]}
    dark, middle, bright = (68, 1, 84), (33, 145, 140), (253, 231, 37)  # of viridis
    for colour in (dark, middle, bright):
        assert any(max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= 3 for other in drawn), colour
    assert (
        png([("a $ b", half), ("[red]$\\frac", whole)], "net (random:0), padding $zero\nSPC 0.50", "value") == content
    )


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingError, match=r"pip install 'position-bench\[report\]'"):
        png([("one", RISING)], "", "")


def pixels(uri: str) -> list[tuple[int, ...]]:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def test_the_scale_goes_from_dark_to_bright_and_ends_there() -> None:
    drawn = pixels(data_uri(np.array([[0.0, 1.0], [2.0, 5.0]], np.float32), 0.0, 2.0))
    colours = colormaps["viridis"](np.array([0, 128, 255, 255]), bytes=True)[:, :3]
    assert drawn == [tuple(colour) for colour in colours.tolist()]


def test_a_map_of_one_value_is_in_the_middle() -> None:
    (middle,) = set(pixels(data_uri(np.full((3, 3), 7.0, np.float32), 7.0, 7.0)))
    assert middle == tuple(colormaps["viridis"](np.array([128]), bytes=True)[0, :3].tolist())
