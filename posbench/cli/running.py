"""`posbench run`: select, plan, compute, show."""

import sys
import time
from collections import Counter
from contextlib import closing, redirect_stdout
from json import dumps as json_text
from pathlib import Path
from typing import Annotated, Any

import typer

from posbench.cli import output
from posbench.cli.app import CsvOption, PublishedOption, app, err, names, out, registry, say
from posbench.errors import Interrupted
from posbench.processes import stdout_elsewhere
from posbench.published import published as published_table
from posbench.selection import Selection, select


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="A YAML file with these options as keys.")] = None,
    backbones: Annotated[str | None, names("timm models, `none`, or a plugin's.")] = None,
    paddings: Annotated[str | None, names("What padded operations see. [zero,circular,reflect]")] = None,
    targets: Annotated[str | None, names("Patterns to draw. [H,V,G,HS,VS]")] = None,
    images: Annotated[str | None, names("Sources to train on, and to test on; a path is a folder. [photos]")] = None,
    test_images: Annotated[str | None, names("Other sources to test on.")] = None,
    readouts: Annotated[str | None, names("Models that draw. [ridge]")] = None,
    metrics: Annotated[str | None, names("Scores. [spc,mae,r2]")] = None,
    controls: Annotated[str | None, typer.Option(metavar="all|A,B", help="Checks of every cell. [none]")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="auto|pretrained|random|NAME=PATH", help="Which weights; may be repeated. [auto]"),
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1", help="Draw random weights and readouts. [0]")] = None,
    taps: Annotated[str | None, typer.Option(metavar="all|each|1,3", help="Feature maps to read from. [all]")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of a crop, in pixels. [224]")] = None,
    train_count: Annotated[int | None, typer.Option(help="Training crops. [256]")] = None,
    test_count: Annotated[int | None, typer.Option(help="Test crops. [64]")] = None,
    score_at: Annotated[
        str | None, typer.Option(metavar="grid|image", help="Score on the readout's grid, or at image size. [grid]")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="auto|fp32|bf16", help="Of the network's arithmetic.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|cuda", help="Where to compute. [auto]")] = None,
    store: Annotated[Path | None, typer.Option(help="The SQLite file for results. [posbench.db]")] = None,
    published: PublishedOption = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin from an experiment that ships; see `list experiments`.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts of the plan; `merge` joins them.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Worker processes. [1: none beside this]")] = None,
    time_limit: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="A job that takes longer is ended, and has failed.")
    ] = None,
    csv: CsvOption = None,
    json: Annotated[bool | None, typer.Option("--json", help="Print the rows as JSON alone.")] = None,
    dry_run: Annotated[bool | None, typer.Option("--dry-run", help="Show jobs and cells; compute nothing.")] = None,
    force: Annotated[bool | None, typer.Option("--force", help="Compute again what is stored.")] = None,
    fail_fast: Annotated[bool | None, typer.Option("--fail-fast", help="Stop at the first job that fails.")] = None,
    quiet: Annotated[bool | None, typer.Option("--quiet", help="No progress and no summary.")] = None,
) -> None:
    """Probe every combination of the components named, and show the leaderboard.

    Without options: EfficientNet-Lite0 and no network at all, three paddings, five targets, on photographs.
    """
    options = {name: value for name, value in locals().items() if name != "config"}
    selection = select(config, options)
    output.check(selection.store, csv=selection.csv, json=selection.json)
    beside = published_table(selection.published) if selection.published else None
    from posbench.ingredients import gather

    with stdout_elsewhere(), redirect_stdout(sys.stderr):
        gathered = gather(selection, registry(), download=not selection.dry_run)
        plan = gathered.plan().shard(*selection.part())
    if not plan.cells:
        say(f"posbench: shard {selection.shard} holds nothing: the plan has fewer parts that share no features")
        return
    for warning in gathered.warnings:
        say(f"posbench: warning: {warning}", "yellow")
    if selection.dry_run:
        _show_plan(plan, selection, gathered.device)
        return
    from posbench.store import Store

    with Store(selection.store) as opened:
        failed = _compute(plan, opened, selection, gathered.device)
        records = opened.records(cell.id for cell in plan.cells)
        planned = {job.id for job, _ in plan.jobs()}
        measures = {(metric.name, metric.version) for metric in plan.measures}
        readings = [
            one
            for one in opened.readings()
            if one.job_id in planned and (one.reading.metric, one.reading.version) in measures
        ]
    from posbench.leaderboard import job_row, rows

    output.publish(
        rows(records),
        plan.metrics[0] if plan.metrics else None,
        csv=selection.csv,
        json=selection.json,
        beside=beside,
        of_jobs=[job_row(reading) for reading in readings],
    )
    if failed or any(record.outcome.status == "failed" for record in records):
        raise typer.Exit(1)


def _show_plan(plan: Any, selection: Selection, device: str) -> None:
    """What a run would do; asks the store, if there is one, what is already done."""
    from posbench import render
    from posbench.plan import passes
    from posbench.store import Store

    tasks = plan.tasks()
    if selection.store.exists() and not selection.force:
        with Store(selection.store) as store:
            tasks = plan.tasks(store.finished(plan.metrics), store.measured())
    waiting = {task.job.id for task in tasks}
    if selection.json:
        jobs = [
            {"job_id": job.id, "to_do": job.id in waiting, **job.identity(), "cells": [cell.id for cell in cells]}
            for job, cells in plan.jobs()
        ]
        typer.echo(json_text({"jobs": jobs, "passes": passes(tasks), "device": device}, indent=1))
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
    out.print(render.plain(["backbone", "weights", "padding", "images", "crops", "cells", "state"], lines))
    out.print(
        f"{len(lines)} jobs with {len(plan.cells)} cells; "
        f"{len(tasks)} jobs with {sum(len(task.cells) for task in tasks)} cells to do; "
        f"{passes(tasks)} network passes on {device} in {plan.cells[0].job.precision}",
        highlight=False,
    )


def _compute(plan: Any, store: Any, selection: Selection, device: str) -> bool:
    """Compute what is missing, with a progress bar, and say what it took; returns whether anything failed."""
    since = store.last_run()
    tasks = plan.tasks() if selection.force else plan.tasks(store.finished(plan.metrics), store.measured())
    if not tasks:
        return False
    from posbench import render
    from posbench.executors import Here, Workers, run

    apart = selection.jobs > 1 or selection.time_limit is not None
    executor = Workers(selection, selection.jobs, selection.time_limit) if apart else Here(plan, device)
    jobs = [task.job for task in tasks]
    started, seconds, states = time.perf_counter(), Counter[str](), Counter[str]()
    images = sum(job.n_train + job.n_test for job in jobs)
    try:
        with (
            stdout_elsewhere(),
            redirect_stdout(sys.stderr),
            render.JobProgress(err, len(jobs), images, quiet=selection.quiet) as progress,
            closing(
                run(
                    tasks,
                    store,
                    executor,
                    fail_fast=selection.fail_fast,
                    observer=progress,
                    metrics=plan.metrics,
                    since=since,
                    forced=selection.force,
                    apart=Workers(selection, 1, selection.time_limit),
                )
            ) as results,
        ):
            for job, result in results:
                seconds.update(result.seconds)
                states[result.status] += 1
                for reason in result.failures:
                    say(f"posbench: {job.title}: {reason}", "red")
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after {states.total()} of {len(jobs)} jobs; they are stored in {str(store.path)!r}, "
            "and the same command goes on from there"
        ) from None
    if not selection.quiet:
        # What another process computed meanwhile was found in the store, too; what comes after a first failure was not.
        stopped = selection.fail_fast and states["failed"]
        resumed = sum(1 for _ in plan.jobs()) - (len(jobs) if stopped else states.total())
        spoilt = "".join(f", {states[state]} {state}" for state in ("skipped", "failed") if states[state])
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items())
        say(
            f"{states.total()} jobs computed{spoilt}, {resumed} found in {str(store.path)!r}; "
            f"{time.perf_counter() - started:.1f} s" + (f" ({stages})" if stages else "")
        )
    return states["failed"] > 0
