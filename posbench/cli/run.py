"""`posbench run`: select, plan, compute, show."""

from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posbench.bench.config import load_config
from posbench.cli import output
from posbench.cli.app import CsvOption, PublishedOption, app, err, names, out, registry, say, write

if TYPE_CHECKING:
    from posbench.runner.results import Results


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
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where jobs run; see `list executors`. [local]")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Jobs at once. [local: 1; a cluster: as many as it has room for]")
    ] = None,
    time_limit: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="A job that takes longer is ended, and has failed.")
    ] = None,
    cpus_per_job: Annotated[
        int | None, typer.Option(metavar="N", help="Of a cluster, and threads of a job. [1]")
    ] = None,
    gpus_per_job: Annotated[str | None, typer.Option(metavar="X", help="Of a cluster, such as 0.5. [none]")] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster. [RAY_ADDRESS, or one started here]")
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
    run_config = load_config(config, options)
    output.check(run_config.store, csv=run_config.csv, json=run_config.json)
    from posbench.runner import session as running
    from posbench.runner.progress import Display

    results = running.run(run_config, registry(), Display(err, say, quiet=run_config.quiet))
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


def _show_plan(results: "Results", *, json: bool) -> None:
    """What a run would do."""
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
