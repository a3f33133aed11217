"""Sections of the HTML report: for each, what it shows of a store, and its place in the list `SECTIONS`.

A new section is a function from `Data` to what its template shows, a template `templates/sections/ID.html`, and an
entry in `SECTIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from posbench.bench.records import CellRecord, Example, JobRun, MeasurementRecord
from posbench.bench.row import JobRow, Row
from posbench.bench.taps import ALL
from posbench.core.errors import UsageError
from posbench.plugin.components import Metric
from posbench.plugin.control import ControlCatalogue
from posbench.report.boards import Board, Reach, boards, reaches
from posbench.report.control_boards import control_boards, job_boards, verdict_boards
from posbench.report.galleries import Draw, Gallery, content_errors, galleries
from posbench.report.images import svg_uri
from posbench.report.labels import (
    CONTROL,
    crops_text,
    distinct_parts,
    images_name,
    network_name,
    without_single_taps,
)
from posbench.report.literature import Comparison, compare, every_table
from posbench.report.ranking import Ranking
from posbench.report.reproduce import Commands, commands
from posbench.report.rows import job_row, rows
from posbench.report.taps import svg, tap_scores
from posbench.store.store import Store


@dataclass(frozen=True)
class Data:
    """Everything that a store holds, as sections need it.

    Attributes:
        metrics: those that get a leaderboard.
        controls: the installed controls.
        draw: draws the targets that are shown beside predictions.
    """

    records: Sequence[CellRecord]
    measurements: Sequence[MeasurementRecord]
    runs: Sequence[JobRun]
    examples: Mapping[str, Sequence[Example]]
    metrics: Sequence[Metric]
    controls: ControlCatalogue
    draw: Draw

    @cached_property
    def rows(self) -> list[Row]:
        return rows(self.records, self.controls)

    @cached_property
    def job_rows(self) -> list[JobRow]:
        return [job_row(measurement) for measurement in self.measurements]

    @cached_property
    def together(self) -> list[Row]:
        """The rows without single taps, which the chart and the leaderboards show."""
        return without_single_taps(self.rows)


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        id: the anchor on the page, and the name of the template `sections/ID.html`.
        title: the heading.
        blocks: returns what the template shows; the section is left out where that is empty.
        searchable: the page's filter hides lines of it.
    """

    id: str
    title: str
    blocks: Callable[[Data], Sequence[Any]]
    searchable: bool = True


@dataclass(frozen=True)
class Missing:
    """Cells of one job without a score, for one reason.

    Attributes:
        setting: the parts of the job's setting that not all jobs share.
        what: the targets or metrics; those of controls and of single taps are listed separately.
    """

    status: str
    network: str
    padding: str
    images: str
    setting: str
    what: str
    reason: str


@dataclass(frozen=True)
class Chart:
    """A picture of scores over taps, with a description."""

    title: str
    setting: str
    picture: str
    description: str


@dataclass(frozen=True)
class Provenance:
    """Software, hardware and sources of results, and the commands that compute them again.

    Attributes:
        cells: the number of cells.
        hashes: the weights and images, each with the SHA-256 of its content.
        made_with: different records of software and hardware, as JSON.
    """

    cells: int
    commands: Commands
    hashes: Sequence[tuple[str, str]]
    made_with: Sequence[str]


def load(store: Path, metrics: Sequence[Metric], controls: ControlCatalogue, draw: Draw) -> Data:
    """Read a store for the report.

    Raises:
        UsageError: if it holds nothing.
    """
    with Store(store, must_exist=True) as opened:
        stored = opened.records(), opened.measurements(), opened.runs(), opened.examples()
    data = Data(*stored, metrics, controls, draw)
    if not data.records and not data.measurements:
        raise UsageError(f"{str(store)!r} holds nothing to report: `posbench run` computes some")
    return data


def setting_headings(lines: Sequence[Ranking] | Sequence[Reach] | Sequence[Missing]) -> list[str]:
    """Return the heading of the column of settings; nothing if all lines have the same."""
    return ["measured with"] if any(line.setting for line in lines) else []


def photograph_numbers(shown: Sequence[Gallery]) -> dict[str, int]:
    """Number the photographs of galleries, so that the page holds each once, however many maps are drawn over it."""
    uris = dict.fromkeys(column.uri for gallery in shown for column in gallery.columns)
    return {uri: number for number, uri in enumerate(uris)}


def _leaderboards(data: Data) -> list[Board]:
    return [
        board
        for metric in data.metrics
        for board in _with_scores(boards(data.rows, metric.name, higher_is_better=metric.higher_is_better))
    ]


def _control_boards(data: Data) -> list[Board]:
    return [board for metric in data.metrics for board in _with_scores(control_boards(data.rows, metric.name))]


def _with_scores(every: Iterable[Board]) -> list[Board]:
    """Return the boards that have any score."""
    return [
        board
        for board in every
        if any(
            entry.value is not None for lines in board.sections.values() for _, entries in lines for entry in entries
        )
    ]


def _tap_charts(data: Data) -> list[Chart]:
    return [
        Chart(
            scores.title,
            scores.setting,
            svg_uri(svg(scores)),
            f"{', '.join(scores.scores)} under {', '.join(scores.paddings)}",
        )
        for scores in tap_scores(data.rows)
    ]


def _comparisons(data: Data) -> list[Comparison]:
    """Return rows beside the numbers of papers that have them; rows of the control `none` are shown once."""
    checked = [row for row in data.rows if not row.control]
    matches = [(table, [row for row in checked if table.find(row)]) for table in every_table()]
    comparisons, shown = [], set()
    for table, matching in sorted(matches, key=lambda match: all(row.padding == CONTROL for row in match[1])):
        of_networks = any(row.padding != CONTROL for row in matching)
        remaining = [row for row in matching if of_networks or row.cell_id not in shown]
        shown |= {row.cell_id for row in remaining}
        if remaining:
            comparisons.append(compare(remaining, table))
    return comparisons


def _missing(data: Data) -> list[Missing]:
    """Return cells and measurements without a score, a line a job and reason."""
    every: list[Row | JobRow] = [*data.rows, *data.job_rows]
    lacking = [row for row in every if row.status != "ok"]
    several = len({row.readout for row in lacking if isinstance(row, Row)}) > 1
    jobs: dict[tuple[str, str, str, str, str, str, str], dict[str, dict[str, None]]] = {}
    for row in lacking:
        job = (row.status, network_name(row), row.padding, images_name(row), row.reason, crops_text(row), row.precision)
        kind, name = "", row.metric if isinstance(row, JobRow) else row.target
        if isinstance(row, Row):
            taps = f"taps {row.taps}" if row.taps != ALL else ""
            kind = ", ".join(filter(None, (row.control, row.readout if several else "", taps)))
        jobs.setdefault(job, {}).setdefault(kind, {})[name] = None
    missing = []
    for (job, kinds), setting in zip(jobs.items(), distinct_parts([job[5:] for job in jobs]), strict=True):
        what = "; ".join(f"{kind}: {', '.join(names)}" if kind else ", ".join(names) for kind, names in kinds.items())
        status, network, padding, images, reason = job[:5]
        missing.append(Missing(status, network, padding, images, setting, what, reason))
    return missing


def _provenance(data: Data) -> list[Provenance]:
    identities = [record.outcome.identity for record in data.records]
    identities += [dict(measurement.identity) for measurement in data.measurements]
    # Without times, so that equal runs are one record.
    made_with = {
        json.dumps(known, sort_keys=True): known
        for run in data.runs
        for known in [{key: value for key, value in run.provenance.items() if key != "seconds"}]
    }
    texts = [json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) for known in made_with.values()]
    return [
        Provenance(len(data.rows), commands(data.records, data.measurements, data.controls), _hashes(identities), texts)
    ]


def _hashes(identities: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the weights and images that results depend on, each with the SHA-256 of its content."""
    parts = [("weights", "weights"), ("images", "images"), ("images", "test_images")]
    return sorted(
        {
            (f"{kind} {identity[part]['label']}", str(identity[part].get("sha256") or "–"))
            for identity in identities
            for kind, part in parts
        }
    )


#: The sections in the order of the page.
SECTIONS = (
    Section("verdicts", "Verdicts", lambda data: verdict_boards(data.together)),
    Section("leaderboard", "Leaderboard", _leaderboards),
    Section("controls", "Controls", _control_boards),
    Section("drawn", "What was drawn", lambda data: galleries(data.records, data.together, data.draw)),
    Section("taps", "Score by tap", _tap_charts),
    Section(
        "disturbed",
        "What photographs disturb",
        lambda data: content_errors(data.records, data.together, data.examples, data.draw),
    ),
    Section("reach", "Reach of the border", lambda data: reaches(data.rows)),
    Section("networks", "Networks as a whole", lambda data: job_boards(data.job_rows)),
    Section("published", "Beside published numbers", _comparisons),
    Section("missing", "Skipped and failed", _missing),
    Section("provenance", "Provenance", _provenance, searchable=False),
)
