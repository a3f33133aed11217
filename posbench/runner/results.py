"""The results of a run: rows, boards and maps.

Imports no torch, and pandas only where a data frame is returned.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from posbench.bench.plan import Plan, Task
from posbench.bench.row import JOB_COLUMNS, JobRow, Row
from posbench.core.errors import UsageError
from posbench.core.files import write_atomically
from posbench.plugin.components import Metric, Target
from posbench.plugin.control import ControlCatalogue
from posbench.plugin.registry import load_registry
from posbench.report import markdown
from posbench.report.boards import BY, Board, boards
from posbench.report.control_boards import control_boards, job_boards, verdict_boards
from posbench.report.literature import Published, compare, headings
from posbench.report.rows import frame
from posbench.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Spent:
    """Statistics of the jobs that a run computed.

    Attributes:
        states: the number of jobs that ended `ok`, `skipped` or `failed`.
        seconds: the seconds of each stage, summed over jobs.
        elapsed: the seconds that the run took.
        stopped: True if the run ended at its first failure, by `fail_fast`.
    """

    states: Mapping[str, int]
    seconds: Mapping[str, float]
    elapsed: float
    stopped: bool = False


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Boards of scores as `posbench leaderboard` shows them; prints as text, and as HTML in a notebook."""

    boards: tuple[Board, ...]

    def to_markdown(self) -> str:
        """Return the boards as Markdown, the best of each column in bold."""
        return markdown.of_boards(self.boards)

    def __str__(self) -> str:
        from rich.console import Console

        from posbench.report import terminal

        console = Console(color_system=None, force_jupyter=False, width=120)
        with console.capture() as captured:
            for board in self.boards:
                console.print(terminal.board(board))
        return captured.get()

    def _repr_html_(self) -> str:
        from posbench.report import html

        return "\n".join(html.board_table(board) for board in self.boards)


@dataclass(frozen=True, eq=False)
class Results:
    """The results of `posbench.run`: all jobs and cells of its plan, computed now or found in the store.

    Attributes:
        plan: the jobs and cells of the run.
        tasks: the part of the plan that the store lacked when the run began.
        device: `cpu` or `cuda`.
        store: the SQLite file that holds the results.
        rows: one row a cell, in the plan's order; empty after a dry run.
        job_rows: one row a measurement of a network as a whole.
        warnings: messages to the user, such as of networks without trained weights.
        spent: statistics of the computed jobs, or None if nothing was computed.
        left_out: the reasons why components of faulty plugins are not in the plan.
        published: the table of a paper to compare with, if the run named one.
    """

    plan: Plan
    tasks: tuple[Task, ...]
    device: str
    store: Path
    rows: Sequence[Row] = ()
    job_rows: Sequence[JobRow] = ()
    warnings: tuple[str, ...] = ()
    spent: Spent | None = None
    published: Published | None = None
    left_out: tuple[str, ...] = ()
    #: Keeps the folder of a temporary store alive.
    _keep_alive: object = field(default=None, repr=False)
    _controls: ControlCatalogue = field(default=ControlCatalogue(()), repr=False)

    @property
    def failed(self) -> bool:
        """True if any job or cell has failed, or a component could not be planned."""
        failed_now = self.spent is not None and self.spent.states.get("failed", 0) > 0
        return failed_now or bool(self.left_out) or any(row["status"] == "failed" for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame with the columns of `posbench run --csv` (see docs/rows.md)."""
        return frame(self.rows)

    def measures(self) -> pd.DataFrame:
        """Return the metrics of networks as a whole (`modes`, `ppp-mae`, …), one row a job, metric and tap."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.job_rows], columns=list(JOB_COLUMNS))

    def jobs(self) -> pd.DataFrame:
        """Return the jobs of the plan; `to_do` says whether the store lacked a part of the job when the run began."""
        import pandas as pd

        incomplete = {task.job.id for task in self.tasks}
        return pd.DataFrame(
            [
                {
                    "backbone": job.backbone.name,
                    "weights": job.weights.label,
                    "padding": job.padding.name if job.padding else "none",
                    "images": job.sources,
                    "crops": job.n_train + job.n_test,
                    "cells": len(cells),
                    "to_do": job.id in incomplete,
                    "job_id": job.id,
                }
                for job, cells in self.plan.jobs()
            ]
        )

    def leaderboard(self, metric: str | None = None, by: str = "padding") -> Leaderboard:
        """Return the boards of scores, controls and verdicts, the best scores first.

        Args:
            metric: the metric to rank by; by default the first of the run.
            by: `padding` for one line a padding and one column a network, or `backbone` for the reverse.

        Raises:
            UsageError: if the run has no such metric, or `by` is neither.
        """
        if by not in BY:
            raise UsageError(f"by={by!r}: choose {' or '.join(BY)}")
        known = {candidate.name: candidate for candidate in self.plan.metrics}
        if metric is not None and metric not in known:
            raise UsageError(f"the run has no metric {metric!r}: choose {' or '.join(known)}, or name it in metrics=")
        of_jobs = job_boards(self.job_rows)
        if not known:
            return Leaderboard(tuple(of_jobs))
        ranked = known[metric] if metric else self.plan.metrics[0]
        shown = boards(self.rows, ranked.name, higher_is_better=ranked.higher_is_better, by=by)
        shown += control_boards(self.rows, ranked.name)
        return Leaderboard((*shown, *verdict_boards(self.rows), *of_jobs))

    def comparison(self) -> pd.DataFrame:
        """Return the rows beside the numbers of the paper that `published` names, and the differences, as text.

        Raises:
            UsageError: if the run named no paper.
        """
        import pandas as pd

        if self.published is None:
            raise UsageError("the run names no paper to compare with: give published='islam2020-table1', say")
        compared = compare(self.rows, self.published)
        lines = [[*labels, *(text for texts in scores for text in texts)] for labels, scores in compared.lines]
        return pd.DataFrame(lines, columns=headings(compared))

    def map(self, cell_id: str) -> NDArray[np.float32]:
        """Return the mean predicted map of a cell, float32 [side, side].

        Args:
            cell_id: the cell's id as in the rows, or its first characters.

        Raises:
            UsageError: if no cell, or more than one, has this id, or if the cell failed or was skipped.
        """
        from posbench.report.images import square

        with Store(self.store, must_exist=True) as store:
            outcome = store.find(cell_id).outcome
        if outcome.mean_map is None:
            raise UsageError(f"cell {cell_id[:12]} has no map: it is {outcome.status} ({outcome.reason})")
        return square(outcome.mean_map, "<f4")

    def report(self, path: str | Path) -> Path:
        """Write the content of the store as one HTML page, as `posbench report` does.

        Args:
            path: the file; replaced if it exists.

        Returns:
            The path of the file.

        Raises:
            UsageError: if it cannot be written, or the store holds nothing.
            MissingError: without jinja2 or matplotlib (the extra `report`).
        """
        from posbench.report.html import content

        installed = load_registry()
        # Components that were made in Python are in no registry.
        metrics = {metric.name: metric for metric in (*installed.every(Metric), *self.plan.metrics)}
        targets = (*installed.every(Target), *(cell.target for cell in self.plan.cells))
        write_atomically(
            Path(path), content(self.store, list(metrics.values()), targets, self._controls, warnings.warn)
        )
        return Path(path)

    def summary(self) -> str:
        """Return one line: the numbers of jobs computed and found in the store, and the time."""
        spent = self.spent or Spent({}, {}, 0.0)
        computed = sum(spent.states.values())
        # Jobs that another process computed meanwhile count as found; those that fail_fast left out do not.
        resumed = sum(1 for _ in self.plan.jobs()) - (len(self.tasks) if spent.stopped else computed)
        not_ok = "".join(
            f", {spent.states[state]} {state}" for state in ("skipped", "failed") if spent.states.get(state)
        )
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in spent.seconds.items())
        return f"{computed} jobs computed{not_ok}, {resumed} found in {str(self.store)!r}; {spent.elapsed:.1f} s" + (
            f" ({stages})" if stages else ""
        )

    def __repr__(self) -> str:
        jobs = sum(1 for _ in self.plan.jobs())
        return f"<posbench.Results of {jobs} jobs with {len(self.plan.cells)} cells, in {str(self.store)!r}>"

    def _repr_html_(self) -> str:
        from posbench.report import html

        # A dry run has no scores to show, but a plan.
        shown = self.leaderboard()._repr_html_() if self.rows or self.job_rows else self.jobs().to_html(index=False)
        return "\n".join([html.paragraphs(self.warnings), shown])
