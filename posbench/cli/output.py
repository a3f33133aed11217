"""Rows of results as files, and in one form on standard output."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.cli.console import out, write
from posbench.core.errors import UsageError
from posbench.core.files import check_destinations, write_atomically
from posbench.plugin.components import Metric

if TYPE_CHECKING:
    from posbench.bench.row import JobRow, Row
    from posbench.report.literature import Published


def check(store: Path, *, csv: str | None, json: bool, markdown: str | None = None) -> None:
    """Check before a long run that its tables can be written.

    Raises:
        UsageError: if standard output would get more than one of them, or a file cannot be written.
    """
    if [csv, markdown].count("-") + json > 1:
        raise UsageError("standard output takes one of --json, --csv - and --markdown -: write the others to files")
    check_destinations(store, {"--csv": csv, "--markdown": markdown})


def publish(
    rows: "Sequence[Row]",
    metric: Metric | None,
    *,
    csv: str | None,
    json: bool,
    by: str = "padding",
    markdown: str | None = None,
    beside: "Published | None" = None,
    of_jobs: "Sequence[JobRow]" = (),
) -> None:
    """Write rows to files, and print them in one form: tables, JSON, CSV or Markdown.

    Args:
        metric: of the leaderboard and the controls; None for neither.
        csv, markdown: a file each, or `-` for standard output.
        by: the component that the leaderboard's rows are.
        beside: a paper's table to compare with.
        of_jobs: rows of measurements of whole networks.
    """
    from posbench.report import literature, terminal
    from posbench.report.boards import boards
    from posbench.report.control_boards import control_boards, job_boards, verdict_boards
    from posbench.report.markdown import of_boards
    from posbench.report.rows import to_csv, to_json

    shown = job_boards(of_jobs)
    if metric and (beside is None or metric.name not in literature.METRICS):
        scores = boards(rows, metric.name, higher_is_better=metric.higher_is_better, by=by)
        checked = control_boards(rows, metric.name)
        shown = [*scores, *checked, *verdict_boards(rows), *shown]
    tables, text = [terminal.board(board) for board in shown], of_boards(shown)
    if beside:
        compared = literature.compare(rows, beside)
        tables, text = [terminal.comparison(compared), *tables], literature.to_markdown(compared) + text
    outputs = [(csv, to_csv(rows)), (markdown, text)]
    for destination, text in outputs:
        if destination == "-":
            write(text)
        elif destination is not None:
            write_atomically(Path(destination), text)
    if json:
        write(to_json(rows))
    elif "-" not in (csv, markdown):
        for table in tables:
            out.print(table)
