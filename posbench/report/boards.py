"""Leaderboards: scores of networks and paddings, best first; and the list of reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posbench.bench.row import JobRow, Row
from posbench.core.statistics import significantly_different
from posbench.report.labels import (
    CONTROL,
    board_title,
    distinct_parts,
    family,
    half_width,
    network_label,
    network_name,
    number_text,
    setting,
    setting_parts,
    setting_text,
    tested,
)
from posbench.report.rows import oldest_first

#: What the lines of a board can be.
BY = ("padding", "backbone")


@dataclass(frozen=True)
class Entry:
    """One score on a board.

    Attributes:
        value: None where there is no score.
        half: half the width of its 95 % interval.
        extent: the lowest and highest score of several seeds, of which the value is the mean.
        best: no other score of this target and column is better.
        level: not significantly different from the best, on the same photographs.
        status: of the cell, or empty where no cell was requested.
        note: the number, from 1, of the note that explains a missing score or adds a remark.
        by_photograph: the score of each photograph, for comparisons.
        mutual: the readouts were cross-fitted on these photographs.
        text: shown in place of a number.
    """

    value: float | None = None
    half: float | None = None
    extent: tuple[float, float] | None = None
    best: bool = False
    level: bool = False
    status: str = ""
    note: int | None = None
    by_photograph: Mapping[str, float] = field(default_factory=dict)
    mutual: bool = False
    text: str = ""


#: A label, and one entry a column.
Line = tuple[str, list[Entry]]


@dataclass(frozen=True)
class Board:
    """Scores of one setting, in sections of lines.

    Attributes:
        section, by: what a section stands for (a target), and a line (a padding or a backbone).
        headings: of the columns of scores.
        sections: the lines of each section, by its name.
        notes: why cells have no score, and remarks.
        setting: distinguishes boards with one title.
    """

    title: str
    caption: str
    section: str
    by: str
    headings: list[str]
    sections: dict[str, list[Line]]
    notes: list[str]
    setting: str = ""


@dataclass(frozen=True)
class Reach:
    """The distance from the border that one score implies.

    Attributes:
        pixels, ceiling: the distance, and the largest one possible, half the image.
        setting: the parts of the setting that not all reaches share.
    """

    target: str
    network: str
    padding: str
    images: str
    pixels: float
    ceiling: float
    setting: str = ""


def boards(rows: Sequence[Row], metric: str, *, higher_is_better: bool, by: str = "padding") -> list[Board]:
    """Return one board for each setting, in the order in which settings first occur, without rows of controls.

    Args:
        metric: the name of the metric to rank by.
        by: `padding` for a line a padding and a column a network, or `backbone` the other way round.
    """
    rows = [row for row in rows if not row.control]
    # The control has no border and one tap: it is shown beside every padding and every choice of taps.
    controls = [row for row in rows if row.padding == CONTROL]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.padding != CONTROL:
            groups.setdefault((row.taps, *setting(row)), []).append(row)
    of_networks = {key[1:] for key in groups}
    for key, group in groups.items():
        group += [row for row in controls if setting(row) == key[1:]]
    for row in controls:
        if setting(row) not in of_networks:
            groups.setdefault((row.taps, *setting(row)), []).append(row)
    return [_board(group, metric, 1 if higher_is_better else -1, by) for group in groups.values()]


def _board(rows: list[Row], metric: str, sign: int, by: str) -> Board:
    networks = sorted(dict.fromkeys(map(network_label, rows)), key=lambda network: network.startswith(CONTROL + "\n"))
    # The control has no border: its one score is compared with every padding.
    paddings = [p for p in dict.fromkeys(row.padding for row in rows) if p != CONTROL] or [CONTROL]
    reasons = distinct_reasons(rows)
    several = _several_seeds(rows)
    networks += several
    lines, headings = (paddings, networks) if by == "padding" else (networks, paddings)
    sections, superseded = {}, 0
    for target in dict.fromkeys(row.target for row in rows):
        # One name may stand for several versions of a component: the newest result is shown.
        of_target = oldest_first(row for row in rows if row.target == target)
        at = {(network_label(row), row.padding): row for row in of_target}
        superseded += len(of_target) - len(at)

        def entry(line: str, heading: str, at: Mapping[tuple[str, str], Row] = at) -> Entry:
            network, padding = (heading, line) if by == "padding" else (line, heading)
            if network in several:
                return seeds_entry([row for name in several[network] if (row := at.get((name, padding)))], metric)
            return score_entry(at.get((network, padding)) or at.get((network, CONTROL)), metric, reasons)

        grid = [(line, [entry(line, heading) for heading in headings]) for line in lines]
        sections[target] = _mark_best(_best_first(grid, sign), sign)
    notes = reason_notes(rows, reasons)
    if superseded:
        notes.append(f"{superseded} older results, of other versions of these components, are in the CSV alone")
    if any(entry.level for lines in sections.values() for _, entries in lines for entry in entries):
        notes.append(
            "≈ not significantly different from the column's best (paired by photograph, 95 % for all together)"
        )
    better = "higher is better" if sign > 0 else "lower is better"
    caption, settings = f"{better}; {score_caption(rows)}", setting_text(rows[0])
    return Board(board_title(rows[0], metric), caption, "target", by, headings, sections, notes, settings)


def _several_seeds(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return a heading for each network with several seeds, and the headings of these seeds."""
    labels_of: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row.weights.startswith("random:") or row.seed is not None:
            labels_of.setdefault(family(row), {})[network_label(row)] = None
    return {
        f"{backbone}\n{weights}, {len(labels)} seeds": list(labels)
        for (backbone, weights), labels in labels_of.items()
        if len(labels) > 1
    }


def seeds_entry(rows: Sequence[Row], metric: str) -> Entry:
    """Return the mean score of several seeds, with the lowest and highest."""
    values = [row.scores[metric].value for row in rows if metric in row.scores]
    if not values:
        return Entry()
    return Entry(sum(values) / len(values), extent=(min(values), max(values)), status="ok")


def score_entry(row: Row | None, metric: str, reasons: Sequence[str]) -> Entry:
    """Return the score of a row, if there is one.

    Args:
        reasons: the texts of the board's numbered notes.
    """
    if row is None:
        return Entry()
    score = row.scores.get(metric)
    return Entry(
        score.value if score else None,
        half_width(score) if score else None,
        status=row.status,
        note=note_number(row, reasons),
        by_photograph=row.by_photograph(metric),
        mutual=row.mutual,
    )


def _best_first(grid: list[Line], sign: int) -> list[Line]:
    """Sort lines by their mean over the columns that all lines with scores share, so that no gap moves a line."""
    scored = [entries for _, entries in grid if any(entry.value is not None for entry in entries)]
    every = range(len(grid[0][1]))
    shared = [i for i in every if all(entries[i].value is not None for entries in scored)] or every

    def rank(line: Line) -> float:
        values = [sign * entry.value for i in shared if (entry := line[1][i]).value is not None]
        return sum(values) / len(values) if values else float("-inf")

    return sorted(grid, key=rank, reverse=True)


def _mark_best(grid: list[Line], sign: int) -> list[Line]:
    """Mark the best entry of each column, and those not significantly different from it."""
    columns = [_mark_column(column, sign) for column in zip(*(entries for _, entries in grid), strict=True)]
    return [(label, list(entries)) for (label, _), entries in zip(grid, zip(*columns, strict=True), strict=True)]


def _mark_column(column: Sequence[Entry], sign: int) -> list[Entry]:
    """Mark the best entry of one column; a column of equal scores has none."""
    values = {sign * entry.value for entry in column if entry.value is not None}
    if len(values) < 2:
        return list(column)
    best = [entry.value is not None and sign * entry.value == max(values) for entry in column]
    top = column[best.index(True)]
    others = sum(entry.value is not None for entry in column) - 1

    def level(entry: Entry) -> bool:
        pair = (entry.by_photograph, top.by_photograph)
        # One photograph alone has no interval.
        return len(pair[0].keys() & pair[1].keys()) > 1 and not significantly_different(
            *pair, others, cross_fitted=entry.mutual or top.mutual
        )

    return [
        replace(entry, best=is_best, level=not is_best and entry.value is not None and level(entry))
        for entry, is_best in zip(column, best, strict=True)
    ]


def score_caption(rows: Sequence[Row]) -> str:
    """Return the caption of a board of scores: the meaning of its intervals, and its setting."""
    first = rows[0]
    photographs = max((row.n_test_photos or 0 for row in rows), default=0)
    interval = {0: "", 1: "no interval: one photograph; "}.get(
        photographs, f"±: 95 % interval over {tested(photographs, first.n_test).replace(' ', ' test ')}; "
    )
    return f"{interval}{setting_text(first)}"


def distinct_reasons(rows: Iterable[Row] | Iterable[JobRow]) -> list[str]:
    """Return the reasons and remarks of rows, each once."""
    return list(dict.fromkeys(row.reason for row in rows if row.reason))


def note_number(row: Row | JobRow, reasons: Sequence[str]) -> int | None:
    """Return the number, from 1, of the note with a row's reason."""
    return reasons.index(row.reason) + 1 if row.reason else None


def reason_notes(rows: Sequence[Row] | Sequence[JobRow], reasons: Sequence[str]) -> list[str]:
    """Return a numbered note for each reason or remark, with the networks and paddings that have it."""
    networks_of: dict[str, dict[str, None]] = {reason: {} for reason in reasons}
    for row in rows:
        if row.reason:
            status = "" if row.status == "ok" else f" {row.status}"
            networks_of[row.reason][f"{row.backbone} × {row.padding}{status}"] = None
    return [f"[{i}] {', '.join(networks)}: {reason}" for i, (reason, networks) in enumerate(networks_of.items(), 1)]


def entry_text(entry: Entry) -> str:
    """Return an entry as text: `0.62 ±0.11`, or why there is no score."""
    note = f" [{entry.note}]" if entry.note else ""
    if entry.text:
        return entry.text
    if entry.value is None:
        return entry.status + note if note else "–"
    level = " ≈" if entry.level else ""
    if entry.extent:
        return f"{number_text(entry.value, digits=2)} ({extent_text(entry.extent)}){level}"
    return number_text(entry.value, entry.half, digits=2) + level + note


def extent_text(values: Iterable[float]) -> str:
    """Return the lowest and highest of several values: `0.10 to 0.62`."""
    ordered = sorted(values)
    return f"{number_text(ordered[0], digits=2)} to {number_text(ordered[-1], digits=2)}"


def reaches(rows: Sequence[Row]) -> list[Reach]:
    """Return the reach of every score that has one, by target and network, the farthest first, without controls."""
    scored = [row for row in rows if row.reach is not None and not row.control]
    settings = distinct_parts([_setting_without_taps(row) for row in scored])
    unsorted = [
        Reach(
            row.target,
            network_name(row) + ("" if row.taps == "all" else f", taps {row.taps}"),
            row.padding,
            row.sources,
            row.reach or 0.0,
            row.image_size / 2,
            settings_of_row,
        )
        for row, settings_of_row in zip(scored, settings, strict=True)
    ]
    order = list(dict.fromkeys((reach.target, reach.network) for reach in unsorted))
    return sorted(unsorted, key=lambda reach: (order.index((reach.target, reach.network)), -reach.pixels))


def _setting_without_taps(row: Row) -> list[str]:
    return [part for part in setting_parts(row) if not part.startswith("taps ")]
