"""Files of a published folder: tables for people, and cells that posbench reads back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posbench.bench.row import JOB_COLUMNS
from posbench.core.errors import UsageError
from posbench.plugin.components import Metric
from posbench.plugin.control import ControlCatalogue
from posbench.report import markdown
from posbench.report.boards import boards
from posbench.report.control_boards import control_boards, job_boards, verdict_boards
from posbench.report.rows import job_row, rows, to_csv
from posbench.store.bundle import CELLS, MARKDOWN, MEASURES, TABLE, Publication, canonical, to_json, without_run
from posbench.store.store import Store


def contents(store: Path, metrics: Sequence[Metric], controls: ControlCatalogue) -> dict[str, bytes]:
    """Return the files that publish a store, by name, without the provenance file.

    Args:
        metrics: those that get a table in Markdown, if the store has them; the CSV has all.
        controls: the installed controls.

    Raises:
        UsageError: if the store holds no cell.
    """
    with Store(store, must_exist=True) as opened:
        published = Publication(opened.runs(), opened.records(), opened.measurements())
        if lost := without_run(published):
            raise UsageError(f"store {str(store)!r} is damaged (no run {lost[0]}): take a copy of it, or name another")
    if not published.records:
        raise UsageError(f"{str(store)!r} holds no cells to publish: `posbench run` computes some")
    cell_rows = rows(published.records, controls)
    job_rows = [job_row(record) for record in published.measurements]
    files = {TABLE: to_csv(cell_rows), CELLS: canonical(to_json(published))}
    if job_rows:
        files[MEASURES] = to_csv(job_rows, JOB_COLUMNS)
    tables = []
    for metric in metrics:
        if any(metric.name in row.scores for row in cell_rows):
            tables += boards(cell_rows, metric.name, higher_is_better=metric.higher_is_better)
            tables += control_boards(cell_rows, metric.name)
    files[MARKDOWN] = markdown.of_boards([*tables, *verdict_boards(cell_rows), *job_boards(job_rows)])
    return {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()}
