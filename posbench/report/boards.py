"""Rows as boards: scores, the best first; scores beside their controls; verdicts; jobs as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posbench.bench.verdict import Verdict, verdicts
from posbench.core.statistics import significantly_different
from posbench.report.labels import (
    CONTROL,
    board_title,
    family,
    network_label,
    network_name,
    number_text,
    setting,
    setting_text,
    tested,
)
from posbench.report.rows import Row


@dataclass(frozen=True)
class Entry:
    """One score on a board.

    Attributes:
        value: None where there is no score.
        half: half the width of its 95 % interval.
        extent: the least and the greatest of several seeds, of which the value is the mean.
        best: no other score of this target and column is better.
        level: it cannot be told from the best, on the same photographs.
        status: of the cell, or empty where nothing was asked for.
        note: the number, from 1, of the note that says why there is no score, or what to know about it.
        by_photograph: what the score is the mean of, for comparisons.
        mutual: whether readouts were cross-fitted on these photographs.
        text: what to show in place of a number.
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


@dataclass(frozen=True)
class Board:
    """Scores of one setting, in sections of lines.

    Attributes:
        section, by: what a section is of (a target), and a line (a padding or a backbone).
        headings: of the columns of scores.
        sections: by name, its lines, each a label and one entry a column.
        notes: why cells have no score.
        setting: what tells boards of one title apart.
    """

    title: str
    caption: str
    section: str
    by: str
    headings: list[str]
    sections: dict[str, list[tuple[str, list[Entry]]]]
    notes: list[str]
    setting: str = ""


_VERDICT_SETTING = ("readout", "taps", "image_size", "precision", "score_at", "n_train")
BY = ("padding", "backbone")


def boards(rows: Sequence[Row], metric: str, *, higher_is_better: bool, by: str = "padding") -> list[Board]:
    """The boards of these rows, one a setting, in the order in which the settings first occur; controls have their own.

    Args:
        by: `padding` for a line a padding and a column a network, or `backbone` the other way round.
    """
    rows = [row for row in rows if not row["control"]]
    # The control has no border and one tap: it stands beside every padding and every choice of taps.
    controls = [row for row in rows if row["padding"] == CONTROL]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["padding"] != CONTROL:
            groups.setdefault((row["taps"], *setting(row)), []).append(row)
    beside = {key[1:] for key in groups}
    for key, group in groups.items():
        group += [row for row in controls if setting(row) == key[1:]]
    for row in controls:
        if setting(row) not in beside:
            groups.setdefault((row["taps"], *setting(row)), []).append(row)
    return [_board(group, metric, 1 if higher_is_better else -1, by) for group in groups.values()]


def _board(rows: list[Row], metric: str, sign: int, by: str) -> Board:
    networks = sorted(dict.fromkeys(map(network_label, rows)), key=lambda network: network.startswith(CONTROL + "\n"))
    # The control has no border: its one score is what every padding is held against.
    paddings = [p for p in dict.fromkeys(row["padding"] for row in rows) if p != CONTROL] or [CONTROL]
    reasons = list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))
    several = _several_seeds(rows)
    networks += several
    lines, headings = (paddings, networks) if by == "padding" else (networks, paddings)
    sections, superseded = {}, 0
    for target in dict.fromkeys(row["target"] for row in rows):
        # One name may stand for several versions of a component: the newest result is the one that a reader wants.
        found = sorted((row for row in rows if row["target"] == target), key=lambda row: str(row["created"]))
        at = {(network_label(row), row["padding"]): row for row in found}
        superseded += len(found) - len(at)

        def entry(line: str, heading: str, at: Mapping[tuple[str, str], Row] = at) -> Entry:
            network, padding = (heading, line) if by == "padding" else (line, heading)
            if network in several:
                return _of_seeds([row for name in several[network] if (row := at.get((name, padding)))], metric)
            return _entry(at.get((network, padding)) or at.get((network, CONTROL)), metric, reasons)

        grid = [(line, [entry(line, heading) for heading in headings]) for line in lines]
        sections[target] = _mark_best(_best_first(grid, sign), sign)
    notes = _notes(rows, reasons)
    if superseded:
        notes.append(f"{superseded} older results, of other versions of these components, are in the CSV alone")
    if any(entry.level for lines in sections.values() for _, entries in lines for entry in entries):
        notes.append("≈ cannot be told from the best of its column (paired by photograph, 95 % for all together)")
    caption, setting = _caption(rows, sign), setting_text(rows[0])
    return Board(board_title(rows[0], metric), caption, "target", by, headings, sections, notes, setting)


def _several_seeds(rows: Sequence[Row]) -> dict[str, list[str]]:
    """A heading for each backbone that there is with several seeds, and the headings of its seeds."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row["weights"].startswith("random:") or row["seed"] is not None:
            groups.setdefault(family(row), {})[network_label(row)] = None
    return {f"{name}\n{what}, {len(one)} seeds": list(one) for (name, what), one in groups.items() if len(one) > 1}


def _of_seeds(rows: Sequence[Row], metric: str) -> Entry:
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return Entry()
    return Entry(sum(values) / len(values), extent=(min(values), max(values)), status="ok")


def _entry(row: Row | None, metric: str, reasons: Sequence[str]) -> Entry:
    if row is None:
        return Entry()
    note = reasons.index(row["reason"]) + 1 if row["reason"] else None
    lo, hi = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    return Entry(
        row.get(metric),
        None if lo is None or hi is None else (hi - lo) / 2,
        status=row["status"],
        note=note,
        by_photograph=row.get("by_photograph", {}).get(metric, {}),
        mutual=bool(row.get("mutual")),
    )


Line = tuple[str, list[Entry]]


def _best_first(grid: list[Line], sign: int) -> list[Line]:
    """Lines by their mean over the columns in which all that have scores have one, so that no gap moves a line."""
    scored = [entries for _, entries in grid if any(entry.value is not None for entry in entries)]
    every = range(len(grid[0][1]))
    shared = [i for i in every if all(entries[i].value is not None for entries in scored)] or every

    def rank(line: Line) -> float:
        values = [sign * entry.value for i in shared if (entry := line[1][i]).value is not None]
        return sum(values) / len(values) if values else float("-inf")

    return sorted(grid, key=rank, reverse=True)


def _mark_best(grid: list[Line], sign: int) -> list[Line]:
    """The same lines with the best entry of each column marked, and those level with it."""
    columns = [_marked(column, sign) for column in zip(*(entries for _, entries in grid), strict=True)]
    return [(label, list(entries)) for (label, _), entries in zip(grid, zip(*columns, strict=True), strict=True)]


def _marked(column: Sequence[Entry], sign: int) -> list[Entry]:
    """One column with its best entry marked; one that never changes has none."""
    values = {sign * entry.value for entry in column if entry.value is not None}
    if len(values) < 2:
        return list(column)
    best = [entry.value is not None and sign * entry.value == max(values) for entry in column]
    top = column[best.index(True)]
    others = sum(entry.value is not None for entry in column) - 1

    def level(entry: Entry) -> bool:
        pair = (entry.by_photograph, top.by_photograph)
        # Of one photograph there is nothing to tell apart by.
        return len(pair[0].keys() & pair[1].keys()) > 1 and not significantly_different(
            *pair, others, cross_fitted=entry.mutual or top.mutual
        )

    return [
        replace(entry, best=is_best, level=not is_best and entry.value is not None and level(entry))
        for entry, is_best in zip(column, best, strict=True)
    ]


def _caption(rows: Sequence[Row], sign: int) -> str:
    first = rows[0]
    photographs = max((row["n_test_photos"] or 0 for row in rows), default=0)
    interval = {0: "", 1: "no interval: one photograph; "}.get(
        photographs, f"±: 95 % interval over {tested(photographs, first['n_test']).replace(' ', ' test ')}; "
    )
    better = {1: "higher is better; ", -1: "lower is better; "}.get(sign, "")
    return f"{better}{interval}{setting_text(first)}"


def _notes(rows: Sequence[Row], reasons: Sequence[str]) -> list[str]:
    """For each reason or remark, the networks and paddings that it is about."""
    failed_result: dict[str, dict[str, None]] = {reason: {} for reason in reasons}
    for row in rows:
        if row["reason"]:
            status = "" if row["status"] == "ok" else f" {row['status']}"
            failed_result[row["reason"]][f"{row['backbone']} × {row['padding']}{status}"] = None
    return [f"[{i}] {', '.join(where)}: {reason}" for i, (reason, where) in enumerate(failed_result.items(), 1)]


def entry_text(entry: Entry) -> str:
    """An entry as text: `0.62 ±0.11`, or why there is none."""
    note = f" [{entry.note}]" if entry.note else ""
    if entry.text:
        return entry.text
    if entry.value is None:
        return entry.status + note if note else "–"
    level = " ≈" if entry.level else ""
    if entry.extent:
        least, most = (number_text(value, None, digits=2) for value in entry.extent)
        return f"{number_text(entry.value, None, digits=2)} ({least} to {most}){level}"
    return number_text(entry.value, entry.half, digits=2) + level + note


ITSELF = "itself"


def control_boards(rows: Sequence[Row], metric: str) -> list[Board]:
    """For each network and setting whose cells are checked: the score itself and every control's, target by target."""
    checks: dict[str, list[Row]] = {}
    for row in rows:
        if row["control"]:
            checks.setdefault(row["control_of"], []).append(row)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["cell_id"] in checks:
            groups.setdefault((network_label(row), row["taps"], *setting(row)), []).append(row)
    return [_control_board(group, checks, metric) for group in groups.values()]


def _control_board(rows: Sequence[Row], checks: Mapping[str, Sequence[Row]], metric: str) -> Board:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    every = [*rows, *(check for row in rows for check in checks[row["cell_id"]])]
    reasons = list(dict.fromkeys(row["reason"] for row in every if row["reason"]))
    sections: dict[str, list[Line]] = {}
    for padding in dict.fromkeys(row["padding"] for row in rows):
        plain = {row["target"]: row for row in rows if row["padding"] == padding}
        lines: dict[str, dict[str, Entry]] = {ITSELF: {}}
        for target, row in plain.items():
            lines[ITSELF][target] = _entry(row, metric, reasons)
            found: dict[str, list[Row]] = {}
            for check in checks[row["cell_id"]]:
                found.setdefault(_check_label(check), []).append(check)
            for label, members in found.items():
                one = len(members) == 1
                entry = _entry(members[0], metric, reasons) if one else _of_seeds(members, metric)
                lines.setdefault(label, {})[target] = entry
        for label, other in (("trained − untrained", "random-weights"), ("selectivity: − permuted", "permuted")):
            if other in lines:
                lines[label] = {target: _less(lines[ITSELF][target], lines[other].get(target)) for target in plain}
        sections[padding] = [
            (label, [entries.get(target, Entry()) for target in targets]) for label, entries in lines.items()
        ]
    network = network_name(rows[0])
    title = f"{board_title(rows[0], metric)}, and its controls: {network}"
    caption = _caption(rows, 0)
    if null := [row["n_test_photos"] for row in every if row["control"] == "null" and row["n_test_photos"]]:
        caption += f"; null: {max(null)} leaves"
    notes = _notes(every, reasons)
    return Board(title, caption, "padding", "control", targets, sections, notes, setting_text(rows[0]))


def _check_label(check: Row) -> str:
    both_ways = check["control"] == "held-out-images"
    return f"{check['control']}, {check['images']} → {check['test_images']}" if both_ways else str(check["control"])


def _less(entry: Entry, other: Entry | None) -> Entry:
    if entry.value is None or other is None or other.value is None:
        return Entry()
    return Entry(entry.value - other.value, status="ok")


def verdict_boards(rows: Sequence[Row]) -> list[Board]:
    """The verdict on each network under each padding, one board a setting; none where no leaves were run."""
    groups: dict[tuple[Any, ...], dict[str, dict[str, Verdict]]] = {}
    first: dict[tuple[Any, ...], Row] = {}
    for row, verdict in zip(rows, verdicts(rows), strict=True):
        if verdict and verdict.evidence:
            key = tuple(row[name] for name in _VERDICT_SETTING)
            first.setdefault(key, row)
            groups.setdefault(key, {}).setdefault(network_label(row), {})[row["padding"]] = verdict
    boards = []
    for key, networks in groups.items():
        parts = list(dict.fromkeys(e.what for by in networks.values() for v in by.values() for e in v.evidence))
        sections = {
            network.replace("\n", ", "): [
                (padding, [Entry(text=verdict.text, status="ok"), *(_extent(verdict, part) for part in parts)])
                for padding, verdict in of_padding.items()
            ]
            for network, of_padding in networks.items()
        }
        row = first[key]
        crops = f"{row['n_train']} training crops of {row['image_size']} px"
        setting = f"{crops}; readout {row['readout']}, taps {row['taps']}, {row['precision']}"
        caption = f"SPC, the least and the greatest of its targets; {setting}"
        boards.append(Board("verdicts", caption, "network", "padding", ["verdict", *parts], sections, [], setting))
    return boards


def _extent(verdict: Verdict, part: str) -> Entry:
    values = [one.mean.value for one in verdict.evidence if one.what == part]
    if not values:
        return Entry()
    least, most = (number_text(value, None, digits=2) for value in (min(values), max(values)))
    return Entry(text=f"{least} to {most}", status="ok")


def job_boards(rows: Sequence[Row]) -> list[Board]:
    """What was measured of jobs as a whole: a metric a section, a network a column, all taps together or one a line."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    settings = ("images", "test_images", "image_size", "precision", "n_train", "n_test")
    for row in rows:
        groups.setdefault(tuple(row[name] for name in settings), []).append(row)
    boards = []
    for group in groups.values():
        reasons = list(dict.fromkeys(row["reason"] for row in group if row["reason"]))
        networks = list(dict.fromkeys(f"{row['backbone']}\n{row['weights']}" for row in group))
        at = {
            (row["metric"], row["padding"], row["tap"], f"{row['backbone']}\n{row['weights']}"): _entry(
                {"value_lo": row["lo"], "value_hi": row["hi"], **row}, "value", reasons
            )
            for row in group
        }
        sections: dict[str, list[Line]] = {}
        for metric, padding, tap, _ in at:
            label = padding if tap == "all" else f"{padding}, tap {tap}"
            line = (label, [at.get((metric, padding, tap, network), Entry()) for network in networks])
            if line not in sections.setdefault(metric, []):
                sections[metric].append(line)
        first = group[0]
        photographs = max((row["n_test_photos"] or 0 for row in group), default=0)
        setting = (
            f"{first['n_train']} training and {first['n_test']} test crops of {first['image_size']} px, "
            f"{first['precision']}"
        )
        caption = f"±: 95 % interval over {tested(photographs, first['n_test'])}; {setting}"
        title, notes = board_title(first, "networks as a whole"), _notes(group, reasons)
        boards.append(Board(title, caption, "metric", "padding", networks, sections, notes, setting))
    return boards
