"""`posbench run`: its options are those of `posbench.bench.config.RunConfig`."""

import inspect
from collections.abc import Iterator
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posbench.bench.config import load_config, option_name, options
from posbench.cli import output
from posbench.cli.console import err, out, registry, say, write

if TYPE_CHECKING:
    from posbench.runner.results import Results


def run(
    config: Annotated[Path | None, typer.Argument(help="A YAML file with these options as keys.")] = None,
    **chosen: Any,
) -> None:
    """Probe every combination of the components named, and show the leaderboard.

    Without options: EfficientNet-Lite0 and no network at all, three paddings, five targets, on photographs.
    """
    run_config = load_config(config, chosen)
    output.check(run_config.store, csv=run_config.csv, json=run_config.json)
    from posbench.runner import session
    from posbench.runner.progress import Display

    results = session.run(run_config, registry(), Display(err, say, quiet=run_config.quiet))
    if not results.plan.cells:
        say(f"posbench: shard {run_config.shard} holds nothing: the plan has fewer parts that share no features")
        return
    if run_config.dry_run:
        _show_plan(results, json=run_config.json)
        raise typer.Exit(1 if results.left_out else 0)
    output.publish(
        results.rows,
        results.plan.metrics[0] if results.plan.metrics else None,
        csv=run_config.csv,
        json=run_config.json,
        beside=results.published,
        of_jobs=results.job_rows,
    )
    if results.failed:
        raise typer.Exit(1)


def _parameters() -> Iterator[inspect.Parameter]:
    """Yield the parameters that typer makes the command's argument and options from."""
    yield inspect.signature(run).parameters["config"]
    for name, kind, option in options():
        # Other types are left as text, which `load_config` converts with the same messages as for YAML and Python.
        cli_type = bool if kind is bool else list[str] if option.repeated else str
        default = typer.Option(None, option_name(name), metavar=option.metavar, help=option.help)
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=cli_type)


run.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]


def _show_plan(results: "Results", *, json: bool) -> None:
    """Print the jobs of a dry run, and how much there is to do."""
    from posbench.bench.plan import passes
    from posbench.report import terminal

    plan, tasks = results.plan, results.tasks
    waiting = {task.job.id for task in tasks}
    if json:
        jobs = [
            {"job_id": job.id, "to_do": job.id in waiting, **job.identity(), "cells": [cell.id for cell in cells]}
            for job, cells in plan.jobs()
        ]
        write(json_text({"jobs": jobs, "passes": passes(tasks), "device": results.device}, indent=1) + "\n")
        return
    lines = [
        [
            job.backbone.name,
            job.weights.label,
            job.padding.name if job.padding else "none",
            job.sources,
            str(job.n_train + job.n_test),
            str(len(cells)),
            "to do" if job.id in waiting else "done",
        ]
        for job, cells in plan.jobs()
    ]
    out.print(terminal.plain(["backbone", "weights", "padding", "images", "crops", "cells", "state"], lines))
    out.print(
        f"{len(lines)} jobs with {len(plan.cells)} cells; "
        f"{len(tasks)} jobs with {sum(len(task.cells) for task in tasks)} cells to do; "
        f"{passes(tasks)} network passes on {results.device} in {plan.cells[0].job.precision}",
    )
