"""The files of a published folder: tables for people, cells for posbench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posbench.core.errors import UsageError
from posbench.plugin.components import Metric
from posbench.report import boards, markdown
from posbench.report import rows as leaderboard
from posbench.store.bundle import CELLS, MARKDOWN, MEASURES, TABLE, Publication, canonical, to_json, without_run
from posbench.store.store import Store


def contents(store: Path, metrics: Sequence[Metric]) -> dict[str, bytes]:
    """The files that stand for a store, by name, without the one that vouches for them.

    Args:
        metrics: those that get a table in Markdown, if the store has them; the CSV has all.

    Raises:
        UsageError: if the store holds no cell.
    """
    with Store(store, must_exist=True) as opened:
        published = Publication(opened.runs(), opened.records(), opened.measurements())
        if lost := without_run(published):
            raise UsageError(f"store {str(store)!r} is damaged (no run {lost[0]}): take a copy of it, or name another")
    if not published.records:
        raise UsageError(f"{str(store)!r} holds no cells to publish: `posbench run` computes some")
    rows = leaderboard.rows(published.records)
    of_jobs = [leaderboard.job_row(one) for one in published.measurements]
    files = {TABLE: leaderboard.to_csv(rows), CELLS: canonical(to_json(published))}
    if of_jobs:
        files[MEASURES] = leaderboard.to_csv(of_jobs, leaderboard.JOB_COLUMNS)
    tables = []
    for metric in metrics:
        if any(row.get(metric.name) is not None for row in rows):
            tables += boards.boards(rows, metric.name, higher_is_better=metric.higher_is_better)
            tables += boards.control_boards(rows, metric.name)
    files[MARKDOWN] = markdown.of_boards([*tables, *boards.verdict_boards(rows), *boards.job_boards(of_jobs)])
    return {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()}
