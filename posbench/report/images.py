"""Maps over the image plane as pictures: in the terminal, as PNG files, and as data URIs for pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from posbench.core.errors import MissingError
from posbench.core.text import ascii_form, printable
from posbench.report.wrapping import wrap

Map = Sequence[Sequence[float]]
#: Shades from dark to bright, for terminals without colour; a value takes two characters.
SHADES = " ░▒▓█"
ASCII_SHADES = " .:-=+*#%@"
#: Characters between two maps.
_GAP = 3


@dataclass(frozen=True)
class Drawing:
    """Maps for the terminal, drawn side by side, or one below the other in narrow terminals.

    In colour, one character shows two rows of a map; without colour, every value takes two characters of shade. Where a
    map is wider than the terminal, a character shows the mean of several values.

    Attributes:
        maps: each with its title, square, values of any range.
        common: draw all maps on one scale, from the lowest to the highest value of all; else each on its own.
    """

    maps: Sequence[tuple[str, Map]]
    common: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        coloured = console.color_system in ("256", "truecolor") and not console.no_color and not options.ascii_only
        shades = ASCII_SHADES if options.ascii_only else SHADES
        form = ascii_form if options.ascii_only else printable
        whole = _limits([values for _, values in self.maps])
        pictures: list[tuple[int, str, Text]] = []
        for title, full in self.maps:
            limits = whole if self.common else _limits([full])
            step = ceil(len(full[0]) * (1 if coloured else 2) / options.max_width)
            values = reduced(full, step)
            levels = brightness(values, *limits)
            text = _half_blocks(levels) if coloured else _in_shades(levels, shades)
            width = len(values[0]) * (1 if coloured else 2)
            heading = form(title) if self.common else f"{form(title)}\n{_scale(*limits)}"
            heading += f"\n(means of {step}×{step} cells)" if step > 1 else ""
            room = min(max(width, 16), options.max_width)
            pictures.append((room, "\n".join(wrap(form(heading), room)), text))
        if self.common:
            yield Text(_scale(*whole) + ("" if coloured else f", in shades of '{shades}'"))
        for line in _lines(pictures, options.max_width):
            table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
            for room, title, _ in line:
                table.add_column(Text(title), width=room, no_wrap=True)
            table.add_row(*(text for _, _, text in line))
            yield table


def _lines(pictures: Sequence[tuple[int, str, Text]], width: int) -> Iterator[list[tuple[int, str, Text]]]:
    """Split pictures into lines, with as many pictures a line as fit."""
    line: list[tuple[int, str, Text]] = []
    for picture in pictures:
        if line and sum(room + _GAP for room, *_ in line) + picture[0] > width:
            yield line
            line = []
        line.append(picture)
    if line:
        yield line


def _scale(low: float, high: float) -> str:
    return f"{low + 0:.2f} (dark) to {high + 0:.2f} (bright)"


def _limits(maps: Sequence[Map]) -> tuple[float, float]:
    """Return the lowest and the highest value of several maps."""
    values = [value for values in maps for row in values for value in row]
    return min(values), max(values)


def reduced(values: Map, step: int) -> Map:
    """Replace each `step`×`step` cells of a map, fewer at the end, by their mean."""
    if step == 1:
        return values
    reduced = []
    for top in range(0, len(values), step):
        rows = values[top : top + step]
        blocks = ([value for row in rows for value in row[left : left + step]] for left in range(0, len(rows[0]), step))
        reduced.append([sum(block) / len(block) for block in blocks])
    return reduced


def brightness(values: Map, low: float, high: float) -> list[list[float]]:
    """Scale a map to levels from 0 (`low`) to 1 (`high`); all levels are one half if these are equal."""
    return [[(value - low) / (high - low) if high > low else 0.5 for value in row] for row in values]


def _half_blocks(levels: Map) -> Text:
    def grey(level: float) -> str:
        return f"#{round(255 * level):02x}" + f"{round(255 * level):02x}" * 2

    text = Text()
    for upper, lower in zip(levels[::2], [*levels[1::2], None], strict=False):
        text.append("\n" if text else "")
        for i, above in enumerate(upper):
            # Of an odd number of rows, the last has no row below it.
            text.append("▀", style=grey(above) if lower is None else f"{grey(above)} on {grey(lower[i])}")
    return text


def _in_shades(levels: Map, shades: str) -> Text:
    last = len(shades) - 1
    return Text("\n".join("".join(shades[round(last * level)] * 2 for level in row) for row in levels))


def png(maps: Sequence[tuple[str, Map]], title: str, unit: str) -> bytes:
    """Return maps side by side on one scale as a PNG picture, with axes that count grid cells and one colour bar.

    Args:
        maps: each with its title, square, values of any range.
        title: above all maps; may have several lines.
        unit: the label of the colour bar.

    Raises:
        MissingError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError("pictures need matplotlib: pip install 'position-bench[report]'") from error
    low, high = _limits([values for _, values in maps])
    figure = Figure(figsize=(1 + 3.6 * len(maps), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for at, (name, values) in zip(axes, maps, strict=True):
        image = at.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        # Names are plain text: a dollar sign must not start a formula.
        at.set_title(printable(name), parse_math=False, fontsize=10)
        at.set_xlabel("column of the grid (cells)")
        at.set_ylabel("row of the grid (cells)")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8)
    bar.ax.set_ylabel(printable(unit), parse_math=False)
    figure.suptitle("\n".join(wrap(printable(title), 50 * len(maps))), parse_math=False, fontsize=10)
    picture = io.BytesIO()
    # Without version and date, so that equal maps make equal files.
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def square(content: bytes, form: str) -> NDArray[np.float32]:
    """Return a stored map, row by row as numbers of this form (such as `<f4`), as float32 [side, side]."""
    flat = np.frombuffer(content, form).astype(np.float32)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


def data_uri(values: NDArray[np.float32], low: float, high: float, colours: str = "viridis") -> str:
    """Return a map as a PNG data URI, a pixel a cell, from dark (`low`) to bright (`high`); other values are clipped.

    Args:
        values: [rows, columns].
        colours: the name of a colour map of matplotlib.

    Raises:
        MissingError: without matplotlib, which has the colour maps.
    """
    share = (values.astype(np.float64) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    image = Image.fromarray(np.rint(255 * share.clip(0, 1)).astype(np.uint8), mode=None).convert("P")
    image.putpalette(_palette(colours))
    return _uri(image, "PNG", optimize=True)


def photograph_uri(rgb: bytes) -> str:
    """Return a square photograph, uint8 red, green and blue row by row, as a JPEG data URI."""
    side = round((len(rgb) // 3) ** 0.5)
    return _uri(Image.frombytes("RGB", (side, side), rgb), "JPEG", quality=80)


def svg_uri(svg: str) -> str:
    """Return a drawing as an SVG data URI; as an image, it cannot run scripts."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _uri(image: Image.Image, form: str, **options: Any) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


@cache
def _palette(name: str) -> list[int]:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingError("pictures need matplotlib: pip install 'position-bench[report]'") from error
    colours = colormaps[name](np.arange(256), bytes=True)
    return [int(part) for part in colours[:, :3].ravel()]
