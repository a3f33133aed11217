"""Rich tables; nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from posbench.bench.verdict import ERROR, RELEVANT, Verdict
from posbench.report.boards import Board, Entry, entry_text
from posbench.report.compare import Differences
from posbench.report.labels import number_text
from posbench.report.literature import METRICS, Comparison, headings
from posbench.report.reaches import Reach
from posbench.report.tables import Cell, Column, Sheet

#: The characters of the longest bar.
BAR = 28


def board(scores: Board) -> Sheet:
    """A board as a table: bold is the best of a column within its target."""
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
    """Our measurements beside a paper's, a section a target."""
    labels = len(compared.labels)
    columns = [Column(heading, right=i >= labels, whole=i >= labels) for i, heading in enumerate(headings(compared))]
    sections: dict[str, list[list[str]]] = {}
    for named, scores in compared.lines:
        lines = sections.setdefault(named[0], [])
        shown = ["" if lines else named[0], *named[1:]]
        lines.append([*shown, *(text for metric in range(len(METRICS)) for text in scores[metric])])
    caption = "\n".join([compared.constant, *compared.notes])
    return Sheet(columns, list(sections.values()), keys=labels, title=compared.title, caption=caption)


def differences(found: Differences) -> Sheet:
    """Differences between two sides, a line a pair of cells."""
    names = list(found.lines[0].labels)
    columns = [Column(name) for name in names]
    columns += [Column(name, right=True, whole=True) for name in ("A", "B", "A − B", "p (Holm)", "photographs")]
    lines = []
    for line in found.lines:
        one = line.difference
        half = None if one.lo is None or one.hi is None else (one.hi - one.lo) / 2
        lines.append(
            [
                *(line.labels[name] for name in names),
                *(number_text(value, None, digits=3) for value in (line.a, line.b)),
                number_text(one.value, half, digits=3),
                "–" if line.adjusted is None else f"{line.adjusted:.3g}",
                "–" if one.n is None else str(one.n),
            ]
        )
    notes = ["±: 95 % interval, paired by photograph; p by sign flips, from 12 photographs on, corrected for all lines"]
    if any(line.difference.n is None for line in found.lines):
        notes.append("–: a table of means does not say which photographs they are over: Welch's interval, and no p")
    if found.unmatched:
        notes.append(f"{found.unmatched} cells have no counterpart")
    title = f"{found.metric}: A is {found.a}, B is {found.b}"
    return Sheet(columns, [lines], keys=len(names), title=title, caption="\n".join(notes))


def reaches(found: Sequence[Reach]) -> Sheet:
    """A bar for each reach, as long as the ceiling at most."""
    columns = [Column("target"), Column("network"), Column("padding"), Column("images")]
    columns += [Column("px", right=True, whole=True), Column("0 to half the image", whole=True)]
    lines: list[list[str]] = []
    last = ("", "")
    for one in found:
        named = (one.target, one.network)
        shown = ("", "") if named == last else named
        last = named
        bar = _bar(one.pixels / one.ceiling)
        lines.append([*shown, one.padding, one.images, f"{one.pixels:.0f}", bar])
    return Sheet(columns, [lines], keys=3, title="reach of the border, in pixels", boxed=False)


def _bar(share: float) -> str:
    """A bar of at most `BAR` characters, to an eighth of one."""
    whole, eighths = divmod(round(8 * BAR * share), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def evidence(verdict: Verdict) -> Sheet:
    """What a verdict rests on."""
    columns = [Column("on"), Column("target"), Column("SPC", right=True, whole=True)]
    columns += [
        Column("p above 0", right=True, whole=True),
        Column("found", whole=True),
        Column("excluded", whole=True),
    ]
    lines = []
    for one in verdict.evidence:
        half = None if one.mean.lo is None or one.mean.hi is None else (one.mean.hi - one.mean.lo) / 2
        lines.append(
            [
                *(one.what, one.target, number_text(one.mean.value, half, digits=3), f"{one.p:.2g}"),
                *("yes" if answer else "no" for answer in (one.found, one.excluded)),
            ]
        )
    caption = (
        f"found: p (corrected for the targets) at most {ERROR}, and SPC at least {RELEVANT}; "
        f"excluded: the 95 % interval lies below {RELEVANT}"
    )
    return Sheet(columns, [lines], keys=2, title=f"verdict: {verdict.text}", caption=caption)


def plain(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Sheet:
    """A table of text; the first column says what a row is."""
    return Sheet([Column(heading) for heading in headings], [list(rows)], boxed=False)
