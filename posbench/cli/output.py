"""Where rows go: files, and one form of them on standard output."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posbench.cli.app import out, write
from posbench.core.errors import UsageError
from posbench.core.files import check_destinations, write_atomically
from posbench.plugin.components import Metric
from posbench.report.published import Published


def check(store: Path, *, csv: str | None, json: bool, markdown: str | None = None) -> None:
    """Find out before a long run, not after it, that its table has nowhere to go."""
    if [csv, markdown].count("-") + json > 1:
        raise UsageError("standard output takes one of --json, --csv - and --markdown -: write the others to files")
    check_destinations(store, {"--csv": csv, "--markdown": markdown})


def publish(
    rows: Sequence[dict[str, Any]],
    metric: Metric | None,
    *,
    csv: str | None,
    json: bool,
    by: str = "padding",
    markdown: str | None = None,
    beside: Published | None = None,
    of_jobs: Sequence[dict[str, Any]] = (),
) -> None:
    """Rows as asked for: to files, and one form of them on standard output."""
    from posbench.report import boards
    from posbench.report import literature as comparison
    from posbench.report import rows as leaderboard
    from posbench.report import terminal as render
    from posbench.report.markdown import of_boards

    shown = boards.job_boards(of_jobs)
    if metric and (beside is None or metric.name not in comparison.METRICS):
        scores = boards.boards(rows, metric.name, higher_is_better=metric.higher_is_better, by=by)
        checked = boards.control_boards(rows, metric.name)
        shown = [*scores, *checked, *boards.verdict_boards(rows), *shown]
    tables, text = [render.board(board) for board in shown], of_boards(shown)
    if beside:
        compared = comparison.compare(rows, beside)
        tables, text = [render.comparison(compared), *tables], comparison.to_markdown(compared) + text
    outputs = [(csv, leaderboard.to_csv(rows)), (markdown, text)]
    for destination, text in outputs:
        if destination == "-":
            write(text)
        elif destination is not None:
            write_atomically(Path(destination), text)
    if json:
        write(leaderboard.to_json(rows))
    elif "-" not in (csv, markdown):
        for table in tables:
            out.print(table)
