"""Tables that fit any terminal: narrowed where text may be broken, then split into blocks of columns, never cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from posbench.core.text import ascii_form, printable
from posbench.report.wrapping import pieces, wrap

#: To how many characters a column of prose is narrowed before the table is split.
NARROW = 16
#: The least room that titles and captions have, where the terminal does, however narrow their table.
PROSE = 60

Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    Attributes:
        right: its cells stand at the right.
        whole: its cells are never broken, as scores; else they may be, as names and prose.
    """

    heading: str
    right: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table that fits itself to the terminal that it is printed to.

    Attributes:
        sections: of rows, each with one cell a column.
        keys: how many of the first columns say what a row is; each block of columns repeats them.
        boxed: drawn with lines, else with spaces alone.
    """

    columns: Sequence[Column]
    sections: Sequence[Sequence[Sequence[Cell]]]
    keys: int = 1
    title: str = ""
    caption: str = ""
    boxed: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Before anything is laid out, since forms in ASCII and escapes may be wider.
        sheet, width = _written(self, ascii_form if options.ascii_only else printable), options.max_width
        tables = [_table(block, width) for block in blocks(sheet, width)]
        broad = max([min(PROSE, width), *(console.measure(table, options=options).maximum for table in tables)])
        title, caption = ("\n".join(wrap(text, broad)) if text else "" for text in (sheet.title, sheet.caption))
        parts: list[Text | Table] = [Text(title, style="table.title"), *tables, Text(caption, style="table.caption")]
        for part in parts:
            # No blanks at the ends of lines, which are long where one cell of a column is.
            for line in console.render_lines(part, options, pad=False) if part else ():
                yield from _stripped(line)
                yield Segment.line()


def _stripped(line: Sequence[Segment]) -> list[Segment]:
    """A line without the blanks at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], *(Segment(last.text.rstrip(), last.style) for last in kept[-1:])]


def _written(sheet: Sheet, form: Callable[[str], str]) -> Sheet:
    """The same sheet, each of its texts in another form."""
    return replace(
        sheet,
        columns=[replace(column, heading=form(column.heading)) for column in sheet.columns],
        sections=[[[_like(cell, form(_plain(cell))) for cell in row] for row in rows] for rows in sheet.sections],
        title=form(sheet.title),
        caption=form(sheet.caption),
    )


def blocks(sheet: Sheet, width: int) -> list[Sheet]:
    """The sheet as one or more, each with the key columns and as many others as fit into `width` characters."""
    every = range(len(sheet.columns))
    least = [_least(sheet, i) for i in every]
    keys = list(every[: sheet.keys])
    if len(keys) > 1 and len(every) > 1 and _total(sheet, [least[i] for i in keys], 1) + NARROW > width:
        numbered = _numbered(sheet)
        # Keys that leave no room are columns like others, and rows are told by their numbers.
        return blocks(numbered, width)
    taken: list[list[int]] = [[*keys]]
    for i in every[sheet.keys :]:
        block = [*taken[-1], i]
        if _total(sheet, [least[j] for j in block]) > width and len(taken[-1]) > len(keys):
            taken.append([*keys, i])
        else:
            taken[-1] = block
    return [_only(sheet, chosen) for chosen in taken]


def _numbered(sheet: Sheet) -> Sheet:
    sections, number = [], 0
    for rows in sheet.sections:
        sections.append([[str(number + i), *row] for i, row in enumerate(rows, 1)])
        number += len(rows)
    return replace(sheet, columns=[Column("row", right=True, whole=True), *sheet.columns], sections=sections, keys=1)


def _only(sheet: Sheet, chosen: Sequence[int]) -> Sheet:
    sections = [[[row[i] for i in chosen] for row in rows] for rows in sheet.sections]
    return replace(sheet, columns=[sheet.columns[i] for i in chosen], sections=sections)


def _total(sheet: Sheet, widths: Sequence[int], more: int = 0) -> int:
    """How wide columns of these widths are, and `more` empty ones, with what stands between them."""
    count = len(widths) + more
    return sum(widths) + (3 * count + 1 if sheet.boxed else 2 * (count - 1))


def _table(sheet: Sheet, width: int) -> Table:
    """The sheet as rich draws it, every text broken to its column's width before."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False) if not sheet.boxed else Table()
    every = range(len(sheet.columns))
    natural = [_natural(sheet, i) for i in every]
    widths = fitted(natural, [_least(sheet, i) for i in every], width - _total(sheet, [0] * len(natural)))
    for column, room in zip(sheet.columns, widths, strict=True):
        heading = Text("\n".join(wrap(column.heading, room)))
        table.add_column(heading, justify="right" if column.right else "left", width=room, no_wrap=True)
    for rows in sheet.sections:
        for row in rows:
            cells = [_like(cell, "\n".join(wrap(_plain(cell), room))) for cell, room in zip(row, widths, strict=True)]
            table.add_row(*cells)
        if sheet.boxed:
            table.add_section()
    return table


def fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fill `room` characters at most: the widest give way first, down to their least width.

    Where even the least widths have no room, the widest go below them.
    """
    if sum(natural) <= room:
        return list(natural)
    floor = list(least) if sum(least) <= room else [1] * len(least)
    cap = max(natural)
    while cap > 1 and sum(_capped(natural, floor, cap)) > room:
        cap -= 1
    widths = _capped(natural, floor, cap)
    for i, wanted in enumerate(natural):
        # What rounding to one cap for all left over.
        spare = room - sum(widths)
        widths[i] += max(0, min(1, wanted - widths[i], spare))
    return widths


def _capped(natural: Sequence[int], floor: Sequence[int], cap: int) -> list[int]:
    return [max(low, min(wanted, cap)) for wanted, low in zip(natural, floor, strict=True)]


def _natural(sheet: Sheet, i: int) -> int:
    texts = (sheet.columns[i].heading, *(_plain(row[i]) for rows in sheet.sections for row in rows))
    return max(1, *(cell_len(line) for text in texts for line in text.split("\n")))


def _least(sheet: Sheet, i: int) -> int:
    """The width below which a column would cut what may not be broken."""
    column = sheet.columns[i]
    cells = [line for rows in sheet.sections for row in rows for line in _plain(row[i]).split("\n")]
    broken = [*pieces(column.heading), *(cells if column.whole else [p for cell in cells for p in pieces(cell)])]
    prose = 0 if column.whole else min(NARROW, _natural(sheet, i))
    return max(1, prose, *map(cell_len, broken)) if broken else 1


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _like(cell: Cell, text: str) -> Text:
    return Text(text, style=cell.style if isinstance(cell, Text) else "")
