"""What a run gave: its rows, boards and maps, for whoever called it. Imports no torch, and pandas only when asked."""

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
    """What became of the jobs that a run computed.

    Attributes:
        states: how many jobs ended `ok`, `skipped` or `failed`.
        seconds: by stage. elapsed: in all.
        stopped: the run ended at its first failure, as asked.
    """

    states: Mapping[str, int]
    seconds: Mapping[str, float]
    elapsed: float
    stopped: bool = False


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Scores as the terminal shows them, the best first: `print` it, or leave it to a notebook to show."""

    boards: tuple[Board, ...]

    def to_markdown(self) -> str:
        """The boards as Markdown, the best of each column in bold."""
        return markdown.of_boards(self.boards)

    def __str__(self) -> str:
        from rich.console import Console

        from posbench.report import terminal

        console = Console(color_system=None, force_jupyter=False, width=120)
        with console.capture() as captured:
            for one in self.boards:
                console.print(terminal.board(one))
        return captured.get()

    def _repr_html_(self) -> str:
        from posbench.report import html

        return "\n".join(html.board_table(one) for one in self.boards)


@dataclass(frozen=True, eq=False)
class Results:
    """What `posbench.run` returns: exactly what was asked for, whether computed now or found in the store.

    Attributes:
        plan: the jobs and cells that were asked for.
        tasks: those of them that were to be computed when the run began.
        device: `cpu` or `cuda`.
        store: the SQLite file that holds the results.
        rows: of cells, in the plan's order; none after a dry run.
        job_rows: of metrics of a network as a whole.
        warnings: what the user should know, such as networks that had no trained weights.
        spent: on what was computed, or None if nothing was.
        left_out: why components are left out of the plan whose plugins kept them from being planned.
        published: the table of a paper to hold the rows against, if asked for.
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
    _keeps: object = field(default=None, repr=False)

    @property
    def failed(self) -> bool:
        """Whether anything that was asked for has failed, or could not be planned."""
        now = self.spent is not None and self.spent.states.get("failed", 0) > 0
        return now or bool(self.left_out) or any(row.status == "failed" for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a data frame, one row a cell, with the columns of `posbench run --csv` (see docs/rows.md)."""
        return frame(self.rows)

    def measures(self) -> pd.DataFrame:
        """What was measured of networks as a whole (`modes`, `ppp-mae`, …), one row a job, metric and tap."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.job_rows], columns=list(JOB_COLUMNS))

    def jobs(self) -> pd.DataFrame:
        """The jobs of the plan, and whether each was to be computed when the run began."""
        import pandas as pd

        waiting = {task.job.id for task in self.tasks}
        return pd.DataFrame(
            [
                {
                    "backbone": job.backbone.name,
                    "weights": job.weights.label,
                    "padding": job.padding.name if job.padding else "none",
                    "images": job.sources,
                    "crops": job.n_train + job.n_test,
                    "cells": len(cells),
                    "to_do": job.id in waiting,
                    "job_id": job.id,
                }
                for job, cells in self.plan.jobs()
            ]
        )

    def leaderboard(self, metric: str | None = None, by: str = "padding") -> Leaderboard:
        """The scores, the best first, with what the controls and verdicts say of them.

        Args:
            metric: to rank by; by default the first that was asked for.
            by: `padding` for a line a padding and a column a network, or `backbone` the other way round.

        Raises:
            UsageError: if the run has no such metric.
        """
        if by not in BY:
            raise UsageError(f"by={by!r}: choose {' or '.join(BY)}")
        known = {one.name: one for one in self.plan.metrics}
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
        """The rows beside the numbers of the paper that `published` named, as text, and the differences.

        Raises:
            UsageError: if none was named.
        """
        import pandas as pd

        if self.published is None:
            raise UsageError("the run names no paper to compare with: give published='islam2020-table1', say")
        compared = compare(self.rows, self.published)
        lines = [[*labels, *(text for scored in scores for text in scored)] for labels, scores in compared.lines]
        return pd.DataFrame(lines, columns=headings(compared))

    def map(self, cell_id: str) -> NDArray[np.float32]:
        """The mean predicted map of a cell, float32 [side, side].

        Args:
            cell_id: as in the rows, or the beginning of one.

        Raises:
            UsageError: if no cell, or more than one, begins so, or it has no map since it failed or was skipped.
        """
        from posbench.report.images import square

        with Store(self.store, must_exist=True) as store:
            outcome = store.find(cell_id).outcome
        if outcome.mean_map is None:
            raise UsageError(f"cell {cell_id[:12]} has no map: it is {outcome.status} ({outcome.reason})")
        return square(outcome.mean_map, "<f4")

    def report(self, path: str | Path) -> Path:
        """Write all that the store holds as one HTML page, as `posbench report` does.

        Args:
            path: the file; replaced if it is there.

        Returns:
            The file.

        Raises:
            UsageError: if it cannot be written, or the store holds nothing.
            MissingError: without jinja2 or matplotlib (the extra `report`).
        """
        from posbench.report.html import content

        installed = load_registry()
        # Components given in Python are in no registry.
        metrics = {one.name: one for one in (*installed.every(Metric), *self.plan.metrics)}
        targets = (*installed.every(Target), *(cell.target for cell in self.plan.cells))
        write_atomically(Path(path), content(self.store, list(metrics.values()), targets, warnings.warn))
        return Path(path)

    def summary(self) -> str:
        """What was computed, what was found, and how long it took, in a line."""
        spent = self.spent or Spent({}, {}, 0.0)
        computed = sum(spent.states.values())
        # What another process computed meanwhile was found in the store, too; what comes after a first failure was not.
        resumed = sum(1 for _ in self.plan.jobs()) - (len(self.tasks) if spent.stopped else computed)
        spoilt = "".join(
            f", {spent.states[state]} {state}" for state in ("skipped", "failed") if spent.states.get(state)
        )
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in spent.seconds.items())
        return f"{computed} jobs computed{spoilt}, {resumed} found in {str(self.store)!r}; {spent.elapsed:.1f} s" + (
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
