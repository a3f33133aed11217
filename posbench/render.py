"""Rich tables and progress; nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from posbench.comparison import METRICS, Comparison, headings
from posbench.leaderboard import Board, Entry, entry_text
from posbench.plan import Job

Map = Sequence[Sequence[float]]


def board(scores: Board) -> Table:
    """A board as a table: bold is the best of a column within its target."""
    table = Table(title=escape(scores.title), title_justify="left", caption_justify="left")
    table.caption = escape("\n".join([scores.caption, *scores.notes]))
    table.add_column("target")
    table.add_column(scores.by)
    for heading in scores.headings:
        table.add_column(escape(heading), justify="right", overflow="fold")
    for target, lines in scores.sections.items():
        for i, (label, entries) in enumerate(lines):
            table.add_row(escape(target) if i == 0 else "", escape(label.replace("\n", ", ")), *map(_entry, entries))
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
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images · {task.fields[rate]} ·"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._jobs = jobs
        self._done = 0
        self._task: TaskID = self._progress.add_task("starting", total=images, rate="")
        self._expected = 0

    def __enter__(self) -> JobProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, job: Job) -> None:
        self._expected += job.n_train + job.n_test
        self._progress.update(self._task, description=escape(f"job {self._done + 1}/{self._jobs} {job.title}"))

    def saw(self, images: int) -> None:
        task = self._progress.tasks[0]
        rate = f"{task.speed:.0f}/s" if task.speed else ""
        self._progress.update(self._task, advance=images, rate=rate)

    def finished(self, job: Job, result: object) -> None:
        # A job that failed or was skipped half-way has seen fewer images than were counted on.
        self._done += 1
        self._progress.update(self._task, completed=self._expected)
