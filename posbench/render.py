"""Rich tables and progress; nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from posbench.boards import Board, Entry, Reach, entry_text, number_text
from posbench.comparison import METRICS, Comparison, headings
from posbench.differences import Differences
from posbench.plan import Job
from posbench.verdict import ERROR, RELEVANT, Verdict

Map = Sequence[Sequence[float]]
#: The characters of the longest bar.
BAR = 28


def board(scores: Board) -> Table:
    """A board as a table: bold is the best of a column within its target."""
    table = Table(title=escape(scores.title), title_justify="left", caption_justify="left")
    table.caption = escape("\n".join([scores.caption, *scores.notes]))
    table.add_column(scores.section)
    table.add_column(scores.by)
    for heading in scores.headings:
        table.add_column(escape(heading), justify="right", overflow="fold")
    for section, lines in scores.sections.items():
        for i, (label, entries) in enumerate(lines):
            table.add_row(escape(section) if i == 0 else "", escape(label.replace("\n", ", ")), *map(_entry, entries))
        table.add_section()
    return table


def _entry(entry: Entry) -> Text:
    colour = {"failed": "red", "skipped": "yellow", "": "dim"}.get(entry.status, "")
    return Text(entry_text(entry), style="bold" if entry.best else colour)


def comparison(compared: Comparison) -> Table:
    """Our measurements beside a paper's, a section a target."""
    table = Table(title=escape(compared.title), title_justify="left", caption_justify="left")
    table.caption = escape("\n".join([compared.constant, *compared.notes]))
    for i, heading in enumerate(headings(compared)):
        table.add_column(escape(heading), justify="left" if i < len(compared.labels) else "right", overflow="fold")
    last = ""
    for labels, scores in compared.lines:
        if last and labels[0] != last:
            table.add_section()
        shown = ["" if labels[0] == last else labels[0], *labels[1:]]
        last = labels[0]
        numbers = [text for metric in range(len(METRICS)) for text in scores[metric]]
        table.add_row(*map(escape, [*shown, *numbers]))
    return table


def differences(found: Differences) -> Table:
    """Differences between two sides, a line a pair of cells."""
    title = f"{found.metric}: A is {found.a}, B is {found.b}"
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    names = list(found.lines[0].labels)
    for name in names:
        table.add_column(escape(name), overflow="fold")
    for heading in ("A", "B", "A − B", "p (Holm)", "photographs"):
        table.add_column(heading, justify="right", overflow="fold")
    for line in found.lines:
        one = line.difference
        half = None if one.lo is None or one.hi is None else (one.hi - one.lo) / 2
        table.add_row(
            *(escape(line.labels[name]) for name in names),
            *(number_text(value, None, digits=3) for value in (line.a, line.b)),
            number_text(one.value, half, digits=3),
            "–" if line.adjusted is None else f"{line.adjusted:.3g}",
            "–" if one.n is None else str(one.n),
        )
    notes = ["±: 95 % interval, paired by photograph; p by sign flips, from 12 photographs on, corrected for all lines"]
    if any(line.difference.n is None for line in found.lines):
        notes.append("–: a table of means does not say which photographs they are over: Welch's interval, and no p")
    if found.unmatched:
        notes.append(f"{found.unmatched} cells have no counterpart")
    table.caption = escape("\n".join(notes))
    return table


def reaches(found: Sequence[Reach]) -> Table:
    """A bar for each reach, as long as the ceiling at most."""
    table = Table(title="reach of the border, in pixels", title_justify="left", caption_justify="left", box=None)
    for heading in ("target", "network", "padding", "images"):
        table.add_column(heading, overflow="fold")
    table.add_column("px", justify="right")
    table.add_column("0 to half the image", min_width=20, ratio=1)
    last = ("", "")
    for one in found:
        named = (one.target, one.network)
        shown = ("", "") if named == last else named
        last = named
        bar = Bar(one.ceiling, 0, one.pixels, width=BAR)
        table.add_row(*map(escape, (*shown, one.padding, one.images)), f"{one.pixels:.0f}", bar)
    return table


def evidence(verdict: Verdict) -> Table:
    """What a verdict rests on."""
    table = Table(title=escape(f"verdict: {verdict.text}"), title_justify="left", caption_justify="left")
    for heading in ("on", "target", "SPC", "p above 0", "found", "excluded"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("SPC", "p above 0") else "left")
    for one in verdict.evidence:
        half = None if one.mean.lo is None or one.mean.hi is None else (one.mean.hi - one.mean.lo) / 2
        table.add_row(
            *(escape(one.what), escape(one.target), number_text(one.mean.value, half, digits=3), f"{one.p:.2g}"),
            *("yes" if answer else "no" for answer in (one.found, one.excluded)),
        )
    table.caption = escape(
        f"found: p (corrected for the targets) at most {ERROR}, and SPC at least {RELEVANT}; "
        f"excluded: the 95 % interval lies below {RELEVANT}"
    )
    return table


def plain(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of text."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


#: From dark to bright, for terminals without colour.
_SHADES = " ░▒▓█"


def maps(pairs: Sequence[tuple[str, Map]], *, coloured: bool) -> Table:
    """Maps side by side, each drawn between its own least and greatest value.

    In colour, one character holds two rows of a map; without, every value takes two characters of shade.
    """
    table = Table(box=None, padding=(0, 3, 0, 0))
    for title, values in pairs:
        table.add_column(f"{escape(title)}\n{_least(values):.2f} (dark) to {_greatest(values):.2f}", no_wrap=True)
    table.add_row(*(_half_blocks(values) if coloured else _shades(values) for _, values in pairs))
    return table


def _least(values: Map) -> float:
    return min(map(min, values))


def _greatest(values: Map) -> float:
    return max(map(max, values))


def _brightness(values: Map) -> list[list[float]]:
    low, high = _least(values), _greatest(values)
    return [[(value - low) / (high - low) if high > low else 0.5 for value in row] for row in values]


def _half_blocks(values: Map) -> Text:
    def grey(level: float) -> str:
        return f"#{round(255 * level):02x}" + f"{round(255 * level):02x}" * 2

    rows = _brightness(values)
    text = Text()
    for upper, lower in zip(rows[::2], [*rows[1::2], rows[-1]], strict=False):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style=f"{grey(above)} on {grey(below)}")
        text.append("\n")
    return text


def _shades(values: Map) -> Text:
    last = len(_SHADES) - 1
    return Text("\n".join("".join(_SHADES[round(last * level)] * 2 for level in row) for row in _brightness(values)))


class JobProgress:
    """A progress bar on standard error, in images; silent off a terminal."""

    def __init__(self, console: Console, jobs: int, images: int, *, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("images{task.fields[rate]}, left"),
            TimeRemainingColumn(compact=True),
            # What narrow terminals have no room for is the end of the job's name.
            TextColumn("{task.fields[title]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._jobs = jobs
        self._done = 0
        self._task: TaskID = self._progress.add_task(f"job 0/{jobs}", total=images, rate="", title="")
        self._seen: Counter[str] = Counter()

    def __enter__(self) -> JobProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, job: Job) -> None:
        self._progress.update(self._task, description=f"job {self._done + 1}/{self._jobs}", title=escape(job.title))

    def saw(self, job: Job, images: int) -> None:
        self._seen[job.id] += images
        task = self._progress.tasks[0]
        rate = f", {task.speed:.0f}/s" if task.speed else ""
        self._progress.update(self._task, advance=images, rate=rate)

    def finished(self, job: Job, result: object) -> None:
        # A job that failed or was skipped half-way has seen fewer images than were counted on.
        self._done += 1
        self._progress.update(self._task, advance=job.n_train + job.n_test - self._seen.pop(job.id, 0))
