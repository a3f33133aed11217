"""Tables and progress bars for the terminal, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from posbench.bench.verdict import ERROR, RELEVANT, Verdict
from posbench.report.boards import Board, Entry, Reach, entry_text
from posbench.report.compare import Differences
from posbench.report.labels import estimate_text, number_text
from posbench.report.literature import METRICS, Comparison, headings
from posbench.report.tables import Cell, Column, Sheet

#: The characters of the longest bar.
BAR = 28


def board(scores: Board) -> Sheet:
    """Return a board as a table, with the best of each column within its section in bold."""
    columns = [Column(scores.section), Column(scores.by)]
    columns += [Column(heading, right=True, whole=True) for heading in scores.headings]
    sections: list[list[list[Cell]]] = [
        [
            [section if i == 0 else "", label.replace("\n", ", "), *map(_entry, entries)]
            for i, (label, entries) in enumerate(lines)
        ]
        for section, lines in scores.sections.items()
    ]
    return Sheet(columns, sections, keys=2, title=scores.title, caption="\n".join([scores.caption, *scores.notes]))


def _entry(entry: Entry) -> Text:
    colour = {"failed": "red", "skipped": "yellow", "": "dim"}.get(entry.status, "")
    return Text(entry_text(entry), style="bold" if entry.best else colour)


def comparison(compared: Comparison) -> Sheet:
    """Return our measurements beside a paper's as a table, a section a target."""
    labels = len(compared.labels)
    columns = [Column(heading, right=i >= labels, whole=i >= labels) for i, heading in enumerate(headings(compared))]
    sections: dict[str, list[list[str]]] = {}
    for (target, *others), scores in compared.lines:
        lines = sections.setdefault(target, [])
        numbers = (text for metric in range(len(METRICS)) for text in scores[metric])
        lines.append(["" if lines else target, *others, *numbers])
    caption = "\n".join([compared.constant, *compared.notes])
    return Sheet(columns, list(sections.values()), keys=labels, title=compared.title, caption=caption)


def differences(compared: Differences) -> Sheet:
    """Return differences between two sides as a table, a line a pair of cells."""
    names = list(compared.lines[0].labels)
    columns = [Column(name) for name in names]
    columns += [Column(name, right=True, whole=True) for name in ("A", "B", "A − B", "p (Holm)", "photographs")]
    lines = [
        [
            *(line.labels[name] for name in names),
            *(number_text(value, digits=3) for value in (line.a, line.b)),
            estimate_text(line.difference, digits=3),
            "–" if line.adjusted is None else f"{line.adjusted:.3g}",
            "–" if line.difference.n is None else str(line.difference.n),
        ]
        for line in compared.lines
    ]
    notes = ["±: 95 % interval, paired by photograph; p by sign flips, from 12 photographs on, corrected for all lines"]
    if any(line.difference.n is None for line in compared.lines):
        notes.append("–: a table of means does not say which photographs they are over: Welch's interval, and no p")
    if compared.unmatched:
        notes.append(f"{compared.unmatched} cells have no counterpart")
    title = f"{compared.metric}: A is {compared.a}, B is {compared.b}"
    return Sheet(columns, [lines], keys=len(names), title=title, caption="\n".join(notes))


def reaches(reaches: Sequence[Reach]) -> Sheet:
    """Return reaches as a table with a bar for each, at its longest for half the image."""
    columns = [Column("target"), Column("network"), Column("padding"), Column("images")]
    columns += [Column("px", right=True, whole=True), Column("0 to half the image", whole=True)]
    lines: list[list[str]] = []
    last = ("", "")
    for reach in reaches:
        names = (reach.target, reach.network)
        shown = ("", "") if names == last else names
        last = names
        bar = _bar(reach.pixels / reach.ceiling)
        lines.append([*shown, reach.padding, reach.images, f"{reach.pixels:.0f}", bar])
    return Sheet(columns, [lines], keys=3, title="reach of the border, in pixels", boxed=False)


def _bar(share: float) -> str:
    """Return a bar of at most `BAR` characters, precise to an eighth of one."""
    whole, eighths = divmod(round(8 * BAR * share), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def evidence(verdict: Verdict) -> Sheet:
    """Return the evidence of a verdict as a table."""
    columns = [Column("on"), Column("target"), Column("SPC", right=True, whole=True)]
    columns += [
        Column("p above 0", right=True, whole=True),
        Column("found", whole=True),
        Column("excluded", whole=True),
    ]
    lines = [
        [
            *(item.what, item.target, estimate_text(item.mean, digits=3), f"{item.p:.2g}"),
            *("yes" if answer else "no" for answer in (item.found, item.excluded)),
        ]
        for item in verdict.evidence
    ]
    caption = (
        f"found: p (corrected for the targets) at most {ERROR}, and SPC at least {RELEVANT}; "
        f"excluded: the 95 % interval lies below {RELEVANT}"
    )
    return Sheet(columns, [lines], keys=2, title=f"verdict: {verdict.label}", caption=caption)


def plain(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Sheet:
    """Return a table of text whose first column names the rows."""
    return Sheet([Column(heading) for heading in headings], [list(rows)], boxed=False)
