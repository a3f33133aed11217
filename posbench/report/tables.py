"""Tables that fit any terminal: columns of text are narrowed, then columns are split into blocks; nothing is cut.

rich alone breaks names at any character and cuts what has no room, so widths and line breaks are computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from posbench.core.text import ascii_form, printable
from posbench.report.wrapping import pieces, wrap

#: The width to which a column of text is narrowed before the table is split.
NARROW = 16
#: The least width of titles and captions, as far as the terminal allows, above and below a narrow table.
PROSE = 60

Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    Attributes:
        right: aligned right.
        whole: its cells are never broken, such as scores; others may be, such as names and sentences.
    """

    heading: str
    right: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table that fits itself to the terminal that it is printed to.

    Attributes:
        sections: of rows, each with one cell a column.
        keys: the number of first columns that name a row; each block of columns repeats them.
        boxed: drawn with lines, else with spaces only.
    """

    columns: Sequence[Column]
    sections: Sequence[Sequence[Sequence[Cell]]]
    keys: int = 1
    title: str = ""
    caption: str = ""
    boxed: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Before the layout, since ASCII forms and escapes may be wider.
        form, width = ascii_form if options.ascii_only else printable, options.max_width
        tables = [_table(block, width, self.boxed) for block in blocks(self, width, form)]
        broad = max([min(PROSE, width), *(console.measure(table, options=options).maximum for table in tables)])
        title, caption = ("\n".join(wrap(form(text), broad)) if text else "" for text in (self.title, self.caption))
        parts: list[Text | Table] = [Text(title, style="table.title"), *tables, Text(caption, style="table.caption")]
        for part in parts:
            for line in console.render_lines(part, options, pad=False) if part else ():
                yield from _stripped(line)
                yield Segment.line()


def _stripped(line: Sequence[Segment]) -> list[Segment]:
    """Remove blanks at the end of a line, which are many where a column has one long cell."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], *(Segment(last.text.rstrip(), last.style) for last in kept[-1:])]


@dataclass(frozen=True)
class Cells:
    """A column with its cells by section, and its widths: the one it needs, and the least without cutting a word."""

    column: Column
    sections: Sequence[Sequence[Text]]
    natural: int
    least: int


def _cells(column: Column, sections: Sequence[Sequence[Cell]], form: Callable[[str], str]) -> Cells:
    column = Column(form(column.heading), column.right, column.whole)
    texts = [
        [Text(form(str(cell)), style=cell.style if isinstance(cell, Text) else "") for cell in cells]
        for cells in sections
    ]
    lines = [line for cells in texts for cell in cells for line in cell.plain.split("\n")]
    natural = max(1, *(cell_len(line) for line in (*column.heading.split("\n"), *lines)))
    unbroken = lines if column.whole else [piece for line in lines for piece in pieces(line)]
    narrow = 1 if column.whole else min(NARROW, natural)
    least = max(narrow, *(cell_len(piece) for piece in ("", *pieces(column.heading), *unbroken)))
    return Cells(column, texts, natural, least)


def blocks(sheet: Sheet, width: int, form: Callable[[str], str] = str) -> list[list[Cells]]:
    """Split a sheet into blocks of columns, each with the key columns and as many others as fit into `width`.

    If the key columns leave no room, they become columns like others, and rows are numbered.
    """

    def total(columns: Sequence[Cells], more: int = 0) -> int:
        return sum(cells.least for cells in columns) + _frame(len(columns) + more, sheet.boxed)

    columns = [
        _cells(column, [[row[i] for row in rows] for rows in sheet.sections], form)
        for i, column in enumerate(sheet.columns)
    ]
    keys = columns[: sheet.keys]
    if len(keys) > 1 and len(columns) > 1 and total(keys, 1) + NARROW > width:
        numbers = iter(range(1, sum(map(len, sheet.sections)) + 1))
        numbered = [[str(next(numbers)) for _ in rows] for rows in sheet.sections]
        keys = [_cells(Column("row", right=True, whole=True), numbered, form)]
        columns = [*keys, *columns]
    taken = [list(keys)]
    for cells in columns[len(keys) :]:
        if len(taken[-1]) > len(keys) and total([*taken[-1], cells]) > width:
            taken.append(list(keys))
        taken[-1].append(cells)
    return taken


def _frame(count: int, boxed: bool) -> int:
    """Return the characters between and around so many columns."""
    return 3 * count + 1 if boxed else 2 * (count - 1)


def _table(block: Sequence[Cells], width: int, boxed: bool) -> Table:
    """Return one block as rich draws it, every text broken to the width of its column."""
    table = Table() if boxed else Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    room = width - _frame(len(block), boxed)
    widths = fitted([cells.natural for cells in block], [cells.least for cells in block], room)
    for cells, own in zip(block, widths, strict=True):
        heading = Text("\n".join(wrap(cells.column.heading, own)))
        table.add_column(heading, justify="right" if cells.column.right else "left", width=own, no_wrap=True)
    for section in zip(*(cells.sections for cells in block), strict=True):
        for row in zip(*section, strict=True):
            table.add_row(*_wrapped(row, widths))
        if boxed:
            table.add_section()
    return table


def _wrapped(row: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    for cell, width in zip(row, widths, strict=True):
        yield Text("\n".join(wrap(cell.plain, width)), style=cell.style)


def fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths of columns that fill `room` characters at most: the widest are narrowed first, to their least.

    Where even the least widths have no room, the widest columns are narrowed below them.
    """
    widths = list(least) if sum(least) <= room else [1] * len(least)
    for _ in range(room - sum(widths)):
        growing = [i for i, width in enumerate(widths) if width < natural[i]]
        if not growing:
            break
        widths[min(growing, key=widths.__getitem__)] += 1
    return widths
