"""Boards beside the leaderboards: scores beside their controls, verdicts, and measurements of whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posbench.bench.row import JobRow, Row
from posbench.bench.verdict import Verdict, verdicts
from posbench.report.boards import (
    Board,
    Entry,
    Line,
    distinct_reasons,
    extent_text,
    note_number,
    reason_notes,
    score_caption,
    score_entry,
    seeds_entry,
)
from posbench.report.labels import (
    board_title,
    crops_text,
    half_width,
    network_label,
    network_name,
    setting,
    setting_text,
    tested,
)

#: The label of the score that the controls check.
ITSELF = "itself"


def control_boards(rows: Sequence[Row], metric: str) -> list[Board]:
    """Return a board for each network and setting with checked cells: each score and its controls, by target."""
    checks: dict[str, list[Row]] = {}
    for row in rows:
        if row.control:
            checks.setdefault(row.control_of or "", []).append(row)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.cell_id in checks:
            groups.setdefault((network_label(row), row.taps, *setting(row)), []).append(row)
    return [_control_board(group, checks, metric) for group in groups.values()]


def _control_board(rows: Sequence[Row], checks: Mapping[str, Sequence[Row]], metric: str) -> Board:
    targets = list(dict.fromkeys(row.target for row in rows))
    every = [*rows, *(check for row in rows for check in checks[row.cell_id])]
    reasons = distinct_reasons(every)
    sections = {}
    for padding in dict.fromkeys(row.padding for row in rows):
        checked = {row.target: row for row in rows if row.padding == padding}
        lines = _control_lines(checked, checks, metric, reasons)
        sections[padding] = [
            (label, [entries.get(target, Entry()) for target in targets]) for label, entries in lines.items()
        ]
    title = f"{board_title(rows[0], metric)}, and its controls: {network_name(rows[0])}"
    caption = score_caption(rows)
    null = [row for row in every if row.of_control and row.of_control.evidence == "null" and row.n_test_photos]
    if null:
        caption += f"; {null[0].control}: {max(row.n_test_photos or 0 for row in null)} {null[0].images}"
    notes = reason_notes(every, reasons)
    return Board(title, caption, "padding", "control", targets, sections, notes, setting_text(rows[0]))


def _control_lines(
    checked: Mapping[str, Row], checks: Mapping[str, Sequence[Row]], metric: str, reasons: Sequence[str]
) -> dict[str, dict[str, Entry]]:
    """Return the entries of one padding by label of the line and target.

    Args:
        checked: the row that the controls check, by target.
        checks: the rows of controls, by the id of the cell that they check.
    """
    lines: dict[str, dict[str, Entry]] = {ITSELF: {}}
    for target, row in checked.items():
        lines[ITSELF][target] = score_entry(row, metric, reasons)
        by_label: dict[str, list[Row]] = {}
        for check in checks[row.cell_id]:
            by_label.setdefault(_check_label(check), []).append(check)
        for label, members in by_label.items():
            single = len(members) == 1
            entry = score_entry(members[0], metric, reasons) if single else seeds_entry(members, metric)
            lines.setdefault(label, {})[target] = entry
    controls = dict.fromkeys(check.of_control for row in checked.values() for check in checks[row.cell_id])
    for control in controls:
        if control and control.difference and control.name in lines:
            lines[control.difference] = {
                target: _difference(lines[ITSELF][target], lines[control.name].get(target)) for target in checked
            }
    return lines


def _check_label(check: Row) -> str:
    """Return the label of a check's line: its name, and its images if its control says so."""
    images = f", {check.images} → {check.test_images}" if check.of_control and check.of_control.label_images else ""
    return f"{check.control}{images}"


def _difference(entry: Entry, other: Entry | None) -> Entry:
    if entry.value is None or other is None or other.value is None:
        return Entry()
    return Entry(entry.value - other.value, status="ok")


def verdict_boards(rows: Sequence[Row]) -> list[Board]:
    """Return the verdict on each network and padding with its evidence, a board a setting."""
    groups: dict[tuple[Any, ...], dict[str, dict[str, Verdict]]] = {}
    first: dict[tuple[Any, ...], Row] = {}
    for row, verdict in zip(rows, verdicts(rows), strict=True):
        if verdict and verdict.evidence:
            key = (row.readout, row.taps, row.image_size, row.precision, row.score_at, row.n_train)
            first.setdefault(key, row)
            groups.setdefault(key, {}).setdefault(network_label(row), {})[row.padding] = verdict
    return [_verdict_board(first[key], networks) for key, networks in groups.items()]


def _verdict_board(row: Row, networks: Mapping[str, Mapping[str, Verdict]]) -> Board:
    """Return the board of one setting, that of the row, from verdicts by network and padding."""
    every = [verdict for of_padding in networks.values() for verdict in of_padding.values()]
    parts = list(dict.fromkeys(evidence.what for verdict in every for evidence in verdict.evidence))
    sections = {
        network.replace("\n", ", "): [
            (padding, [Entry(text=verdict.label, status="ok"), *(_extent(verdict, part) for part in parts)])
            for padding, verdict in of_padding.items()
        ]
        for network, of_padding in networks.items()
    }
    crops = f"{row.n_train} training crops of {row.image_size} px"
    settings = f"{crops}; readout {row.readout}, taps {row.taps}, {row.precision}"
    caption = f"SPC, the least and the greatest of its targets; {settings}"
    return Board("verdicts", caption, "network", "padding", ["verdict", *parts], sections, [], settings)


def _extent(verdict: Verdict, part: str) -> Entry:
    """Return the lowest and highest SPC over the targets of one part of the evidence."""
    values = [evidence.mean.value for evidence in verdict.evidence if evidence.what == part]
    return Entry(text=extent_text(values), status="ok") if values else Entry()


def job_boards(rows: Sequence[JobRow]) -> list[Board]:
    """Return measurements of jobs: a section a metric, a column a network, a line a padding or one of its taps."""
    groups: dict[tuple[Any, ...], list[JobRow]] = {}
    for row in rows:
        key = (row.images, row.test_images, row.image_size, row.precision, row.n_train, row.n_test)
        groups.setdefault(key, []).append(row)
    return [_job_board(group) for group in groups.values()]


def _job_board(rows: Sequence[JobRow]) -> Board:
    reasons = distinct_reasons(rows)
    networks = list(dict.fromkeys(f"{row.backbone}\n{row.weights}" for row in rows))
    at = {
        (row.metric, row.padding, row.tap, f"{row.backbone}\n{row.weights}"): Entry(
            row.value, half_width(row), status=row.status, note=note_number(row, reasons)
        )
        for row in rows
    }
    sections: dict[str, list[Line]] = {}
    for metric, padding, tap in dict.fromkeys(key[:3] for key in at):
        label = padding if tap == "all" else f"{padding}, tap {tap}"
        entries = [at.get((metric, padding, tap, network), Entry()) for network in networks]
        sections.setdefault(metric, []).append((label, entries))
    first = rows[0]
    photographs = max((row.n_test_photos or 0 for row in rows), default=0)
    settings = f"{crops_text(first)}, {first.precision}"
    caption = f"±: 95 % interval over {tested(photographs, first.n_test)}; {settings}"
    title, notes = board_title(first, "networks as a whole"), reason_notes(rows, reasons)
    return Board(title, caption, "metric", "padding", networks, sections, notes, settings)
