"""The command line: reads options, calls the rooms behind, prints. Imports no torch until something is computed."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from json import dumps as json_text
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from posbench import __version__, experiments
from posbench.components import Backbone, Metric, Target
from posbench.errors import Interrupted, MissingError, PosbenchError, UsageError, one_line, unknown
from posbench.folders import user_path
from posbench.published import Published
from posbench.published import published as published_table
from posbench.registry import KINDS, Registry, load_registry, plural
from posbench.selection import Selection, select

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How much absolute position do a network's features carry, and is it the padding that tells them?",
)
#: What a wrong option raises; typer does not export it by name.
UsageException: Any = typer.BadParameter.__base__
out = Console()
err = Console(stderr=True)
#: Characters to a line where no terminal sets a width, so that lines stay whole for whatever reads them.
UNBOUNDED = 400

StoreOption = Annotated[Path, typer.Option("--store", help="The SQLite file that holds the results.")]
CsvOption = Annotated[str | None, typer.Option("--csv", metavar="FILE|-", help="Write the rows as CSV.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the rows as JSON alone.")]
PublishedOption = Annotated[
    str | None, typer.Option("--published", metavar="TABLE", help="Show a paper's numbers beside ours.")
]
MetricOption = Annotated[str | None, typer.Option("--metric", help="The metric to rank by.")]
STORE = Path("posbench.db")


def main() -> None:
    """Run the command line. A user's mistake is one line on standard error and an exit code, never a traceback."""
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = UNBOUNDED
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except PosbenchError as error:
        sys.exit(_told(error, error.exit_code))
    except UsageException as error:
        sys.exit(_told(error.format_message(), UsageError.exit_code))
    except BrokenPipeError:
        # Whoever reads the output has seen enough; what is left is not for anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        sys.exit(_told(f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}", 1))
    sys.exit(code)


def _told(message: object, code: int) -> int:
    _say(f"posbench: {message}", "red")
    return code


def _say(message: str, style: str = "") -> None:
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def _registry() -> Registry:
    registry = load_registry()
    for plugin in registry.plugins:
        if plugin.error:
            _say(f"posbench: plugin {plugin.label} is left out ({plugin.error}); see `posbench plugins`", "yellow")
    return registry


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"posbench {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _names(what: str) -> Any:
    return typer.Option(metavar="A,B", help=what)


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="A YAML file with these options as keys.")] = None,
    backbones: Annotated[str | None, _names("timm models, `none`, or a plugin's.")] = None,
    paddings: Annotated[str | None, _names("What padded operations see. [zero,circular,reflect]")] = None,
    targets: Annotated[str | None, _names("Patterns to draw. [H,V,G,HS,VS]")] = None,
    images: Annotated[str | None, _names("Sources to train on, and to test on; a path is a folder. [photos]")] = None,
    test_images: Annotated[str | None, _names("Other sources to test on.")] = None,
    readouts: Annotated[str | None, _names("Models that draw. [ridge]")] = None,
    metrics: Annotated[str | None, _names("Scores. [spc,mae,r2]")] = None,
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
    _check_outputs(selection.store, csv=selection.csv, json=selection.json)
    beside = published_table(selection.published) if selection.published else None
    registry = _registry()
    from posbench.ingredients import gather

    gathered = gather(selection, registry, download=not selection.dry_run)
    plan = gathered.plan()
    for warning in gathered.warnings:
        _say(f"posbench: warning: {warning}", "yellow")
    if selection.dry_run:
        _show_plan(plan, selection, gathered.device)
        return
    from posbench.store import Store

    with Store(selection.store) as opened:
        failed = _compute(plan, opened, selection, gathered.device)
        records = opened.records(cell.id for cell in plan.cells)
        jobs = {job.id for job, _ in plan.jobs()}
        measures = {(metric.name, metric.version) for metric in plan.measures}
        readings = [
            one
            for one in opened.readings()
            if one.job_id in jobs and (one.reading.metric, one.reading.version) in measures
        ]
    from posbench.leaderboard import job_row, rows

    _publish(
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
    tasks = plan.tasks() if selection.force else plan.tasks(store.finished(plan.metrics), store.measured())
    if not tasks:
        return False
    from posbench import engine, render

    jobs = [task.job for task in tasks]
    started, seconds, states = time.perf_counter(), Counter[str](), Counter[str]()
    images = sum(job.n_train + job.n_test for job in jobs)
    try:
        with render.JobProgress(err, len(jobs), images, quiet=selection.quiet) as progress:
            for job, result in engine.run(
                tasks, plan.metrics, store, device=device, fail_fast=selection.fail_fast, observer=progress
            ):
                seconds.update(result.seconds)
                states[result.status] += 1
                for reason in result.failures:
                    _say(f"posbench: {job.title}: {reason}", "red")
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after {states.total()} of {len(jobs)} jobs; they are stored in {str(store.path)!r}, "
            "and the same command goes on from there"
        ) from None
    if not selection.quiet:
        resumed = sum(1 for _ in plan.jobs()) - len(jobs)
        spoilt = "".join(f", {states[state]} {state}" for state in ("skipped", "failed") if states[state])
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items())
        _say(
            f"{states.total()} jobs computed{spoilt}, {resumed} found in {str(store.path)!r}; "
            f"{time.perf_counter() - started:.1f} s" + (f" ({stages})" if stages else "")
        )
    return states["failed"] > 0


def _check_outputs(store: Path, *, csv: str | None, json: bool, markdown: str | None = None) -> None:
    """Find out before a long run, not after it, that its table has nowhere to go."""
    if [csv, markdown].count("-") + json > 1:
        raise UsageError("standard output takes one of --json, --csv - and --markdown -: write the others to files")
    taken = {store.resolve(): "--store"}
    for option, name in (("--csv", csv), ("--markdown", markdown)):
        if name in (None, "-"):
            continue
        path = user_path(str(name))
        if path.resolve() in taken:
            raise UsageError(f"{option} {name!r} is the file of {taken[path.resolve()]}: name another")
        taken[path.resolve()] = option
        if path.is_dir():
            raise UsageError(f"{option} {name!r} is a folder: name a file")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {name!r}: there is no folder {str(path.parent)!r}; make it first")


def _publish(
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
    from posbench import boards, comparison, leaderboard, render

    shown = boards.job_boards(of_jobs)
    if metric and beside is None:
        checked = boards.control_boards(rows, metric.name)
        shown = [*boards.boards(rows, metric.name, higher_is_better=metric.higher_is_better, by=by), *checked, *shown]
    tables, text = [render.board(board) for board in shown], boards.to_markdown(shown)
    if beside:
        compared = comparison.compare(rows, beside)
        tables, text = [render.comparison(compared), *tables], comparison.to_markdown(compared) + text
    outputs = [(csv, leaderboard.to_csv(rows)), (markdown, text)]
    for destination, text in outputs:
        if destination == "-":
            sys.stdout.write(text)
        elif destination is not None:
            leaderboard.write_whole(Path(destination), text)
    if json:
        sys.stdout.write(leaderboard.to_json(rows))
    elif "-" not in (csv, markdown):
        for table in tables:
            out.print(table)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="backbones, paddings, images, …")] = None,
) -> None:
    """Show the components that can be named, all or of one kind."""
    from posbench import render

    kinds = {plural(singular): singular for singular in KINDS}
    if kind is not None and kind not in (*kinds, EXPERIMENTS, CONTROLS):
        raise unknown("kind", kind, [*kinds, EXPERIMENTS, CONTROLS])
    registry = _registry()
    for title, singular in kinds.items():
        if kind not in (None, title):
            continue
        entries = registry.entries(singular)
        shown = [entry for entry in entries if kind or entry.component.summary != TIMM_SUMMARY]
        lines = [[e.component.name, e.component.summary, e.plugin.label] for e in shown]
        out.print(render.plain([title, "summary", "plugin"], lines))
        if len(shown) < len(entries):
            out.print(f"… and {len(entries) - len(shown)} timm models: `posbench list {title}`", highlight=False)
        out.print()
    if kind in (None, EXPERIMENTS):
        lines = [[name, experiments.summary(name)] for name in experiments.names()]
        out.print(render.plain([EXPERIMENTS, "summary"], lines))
        out.print()
    if kind in (None, CONTROLS):
        from posbench import controls

        lines = [[control.name, control.summary] for control in controls.CONTROLS.values()]
        out.print(render.plain([CONTROLS, "summary"], lines))
        out.print()
    if kind in (None, "images"):
        out.print("Any folder of images is a source too, by its path.")


TIMM_SUMMARY = "a timm model"
EXPERIMENTS = "experiments"
CONTROLS = "controls"


@app.command()
def experiment(name: Annotated[str, typer.Argument(help="One of `posbench list experiments`.")]) -> None:
    """Print an experiment's configuration, to copy and change."""
    sys.stdout.write(experiments.path(name).read_text(encoding="utf-8"))


@app.command()
def plugins() -> None:
    """Show the plugins found, what they offer, and why one could not be loaded."""
    from posbench import render

    registry = load_registry()
    lines = [
        [plugin.distribution, plugin.version, plugin.name, plugin.error or ", ".join(plugin.hooks)]
        for plugin in registry.plugins
    ]
    out.print(render.plain(["distribution", "version", "plugin", "hooks, or error"], lines))


@app.command()
def audit(
    backbone: Annotated[str, typer.Argument(help="The network to look into.")],
    image_size: Annotated[int, typer.Option(min=8, max=4096, help="Side of the image, in pixels.")] = 224,
) -> None:
    """Show every padded operation of a network, and whether its padding is even; fails if a strategy would miss one."""
    record = _registry().get(Backbone, backbone)
    from posbench import render
    from posbench.audit import even_sizes, operations

    found = operations(record, image_size)
    lines = [
        [
            operation.layer or "(the network)",
            operation.operation,
            *(f"{down}×{across}" for down, across in (operation.kernel, operation.stride)),
            ", ".join(map(str, operation.sides)),
            f"{operation.size[0]}×{operation.size[1]}",
            "uneven" if operation.uneven else "even",
        ]
        for operation in found
    ]
    out.print(
        render.plain(["layer", "operation", "kernel", "stride", "left, right, top, bottom", "map", "padding"], lines)
    )
    uneven = sum(operation.uneven for operation in found)
    out.print(
        f"{len(found)} padded operations at {image_size} px, {uneven} of them uneven; a strategy reaches them all"
    )
    if uneven:
        nearest = " and ".join(f"{size} px" for size in even_sizes(record, image_size))
        out.print(f"nearest sizes at which all are even: {nearest or 'none within 64 px'}")


def _rows(store: Path) -> list[dict[str, Any]]:
    from posbench.leaderboard import rows
    from posbench.store import Store

    with Store(store, must_exist=True) as opened:
        return rows(opened.records())


def _job_rows(store: Path) -> list[dict[str, Any]]:
    from posbench.leaderboard import job_row
    from posbench.store import Store

    with Store(store, must_exist=True) as opened:
        return [job_row(reading) for reading in opened.readings()]


@app.command()
def leaderboard(
    store: StoreOption = STORE,
    by: Annotated[str, typer.Option(metavar="padding|backbone", help="What stands in the lines.")] = "padding",
    metric: MetricOption = None,
    csv: CsvOption = None,
    markdown: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write the tables as Markdown.")] = None,
    json: JsonOption = False,
    published: PublishedOption = None,
    reach: Annotated[bool, typer.Option("--reach", help="Plot how far from the border position reaches.")] = False,
) -> None:
    """Show everything that a store holds, the best first."""
    from posbench.boards import BY

    if by not in BY:
        raise UsageError(f"--by {by!r}: choose {' or '.join(BY)}")
    _check_outputs(store, csv=csv, json=json, markdown=markdown)
    rows = _rows(store)
    registry = _registry()
    present = [name for name in registry.names("metric") if any(name in row for row in rows)]
    chosen = registry.get(Metric, metric or next(iter(present), "spc"))
    if metric and present and chosen.name not in present:
        raise UsageError(f"{str(store)!r} holds no {chosen.name}: `posbench run --metrics {chosen.name} …` adds it")
    beside = published_table(published) if published else None
    _publish(rows, chosen, csv=csv, json=json, by=by, markdown=markdown, beside=beside, of_jobs=_job_rows(store))
    if reach and not json and "-" not in (csv, markdown):
        from posbench import boards, render

        out.print(render.reaches(boards.reaches(rows)))


@app.command()
def measures(
    store: StoreOption = STORE,
    csv: CsvOption = None,
    json: JsonOption = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Draw them: leading modes, patterns of padding.")
    ] = False,
) -> None:
    """Show what a store holds of networks as a whole: metrics that need no target."""
    from posbench import boards, leaderboard, render

    _check_outputs(store, csv=csv, json=json)
    rows = _job_rows(store)
    text = leaderboard.to_csv(rows, leaderboard.JOB_COLUMNS)
    if csv == "-":
        sys.stdout.write(text)
    elif csv is not None:
        leaderboard.write_whole(Path(csv), text)
    if json:
        typer.echo(json_text([{name: row[name] for name in leaderboard.JOB_COLUMNS} for row in rows], indent=1))
    elif csv != "-":
        for board in boards.job_boards(rows):
            out.print(render.board(board))
        for title, maps in _pictures(store) if pictures else ():
            out.print(f"\n{title}", markup=False, highlight=False)
            out.print(render.maps(maps, coloured=out.color_system is not None))


def _pictures(store: Path) -> Iterable[tuple[str, list[tuple[str, Any]]]]:
    """The pictures of each metric of each job, side by side, each with its title."""
    import numpy as np

    from posbench.leaderboard import job_row
    from posbench.store import Store

    with Store(store, must_exist=True) as opened:
        found = [one for one in opened.readings() if one.reading.picture]
    titles: dict[str, list[tuple[str, Any]]] = {}
    for one in found:
        row, columns = job_row(one), one.reading.columns or 1
        images = row["images"] if row["images"] == row["test_images"] else f"{row['images']} → {row['test_images']}"
        title = f"{row['metric']}: {row['backbone']} ({row['weights']}), {row['padding']}, {images}"
        picture = np.frombuffer(one.reading.picture or b"", "<f4").reshape(-1, columns)
        # Several square maps stand one below the other.
        for number, start in enumerate(range(0, len(picture), columns), 1):
            name = f"tap {row['tap']}" if row["tap"] != "all" else f"no. {number}"
            titles.setdefault(title, []).append((name, picture[start : start + columns].tolist()))
    return titles.items()


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A store, a CSV file, or columns such as padding=zero,target=H.")],
    b: Annotated[str, typer.Argument(help="What it is held against.")],
    store: StoreOption = STORE,
    metric: MetricOption = None,
    json: JsonOption = False,
) -> None:
    """Show the differences between two sides, cell by cell, on the same photographs."""
    from posbench import differences, render

    first, second = (differences.side(text, store) for text in (a, b))
    found = differences.compare(first, second, metric or "spc")
    if json:
        typer.echo(differences.to_json(found))
    else:
        out.print(render.differences(found))


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="A cell's id, or enough of its start.")],
    store: StoreOption = STORE,
) -> None:
    """Draw a cell's mean predicted map beside its target, and tell how it was made."""
    import numpy as np

    from posbench import boards, render
    from posbench.leaderboard import columns, rows
    from posbench.store import Store
    from posbench.verdict import verdicts

    with Store(store, must_exist=True) as opened:
        record = opened.find(cell)
        provenance = opened.provenance(record.run_id)
        every = rows(opened.records())
    number = next(i for i, row in enumerate(every) if row["cell_id"] == record.cell_id)
    values = every[number]
    lines = [[name, f"{values[name]}"] for name in columns([values]) if values.get(name) not in (None, "")]
    out.print(render.plain(["cell", ""], lines))
    verdict = verdicts(every)[number]
    if verdict and verdict.evidence:
        out.print()
        out.print(render.evidence(verdict))
    for board in boards.control_boards([values, *(r for r in every if r["control_of"] == record.cell_id)], "spc"):
        out.print()
        out.print(render.board(board))
    if record.outcome.mean_map:
        flat = np.frombuffer(record.outcome.mean_map, "<f4")
        side = round(len(flat) ** 0.5)
        pairs = [("mean prediction", flat.reshape(side, side).tolist()), *_target_map(record.outcome.identity, side)]
        out.print()
        out.print(render.maps(pairs, coloured=out.color_system is not None))
    out.print()
    out.print(render.plain(["provenance", ""], [[key, _flat(value)] for key, value in sorted(provenance.items())]))


def _target_map(identity: dict[str, Any], side: int) -> list[tuple[str, list[list[float]]]]:
    """The target as it was asked for, if that version of it is still installed."""
    name, registry = identity["target"]["name"], _registry()
    if name not in registry.names("target") or registry.get(Target, name).version != identity["target"]["version"]:
        return []
    from posbench.maps import pattern, resize

    try:
        return [(f"target {name}", resize(pattern(registry.get(Target, name)), side).tolist())]
    except Exception as error:
        _say(f"posbench: target {name} cannot be drawn ({one_line(error)})", "yellow")
        return []


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command()
def doctor() -> None:
    """Check packages, device, weights, photographs, hub and plugins; exit code 4 if a bare run cannot work."""
    from posbench import render

    lines = [[what, "ok" if ok else "missing" if needed else "note", detail] for what, ok, needed, detail in _checks()]
    out.print(render.plain(["what", "state", "detail"], lines))
    if any(state == "missing" for _, state, _ in lines):
        raise typer.Exit(MissingError.exit_code)


def _checks() -> Iterable[tuple[str, bool, bool, str]]:
    """What is checked: its name, whether it is well, whether a bare run needs it, and what was found."""
    import platform
    from importlib.metadata import version

    from posbench.ingredients import BARE_RUN
    from posbench.machine import resolve_device, resolve_precision
    from posbench.weights import Request, hub_answers, resolve

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "numpy", "pandas"))
    yield "python", True, True, f"{platform.python_version()}, posbench {__version__}, {packages}"
    device = resolve_device("auto")
    yield "device", True, True, f"{device}, {resolve_precision('auto', device)}"
    registry = load_registry()
    for name in BARE_RUN:
        # Not only named: a hub within reach would do as well as a package.
        weights, problem = resolve(registry.get(Backbone, name), Request(), [0], download=False)
        yield f"weights of {name}", problem is None, True, problem or weights[0].label
    try:
        files = registry.images("photos").photographs
        missing = [path.name for path in (files() if files else []) if not path.is_file()]
        yield "photographs", not missing, True, f"not found: {', '.join(missing)}" if missing else "all there"
    except MissingError as error:
        yield "photographs", False, True, str(error)
    hub = "answers" if hub_answers() else "out of reach: trained weights come from packages and files alone"
    yield "model hub", hub_answers(), False, hub
    broken = [f"{plugin.label}: {plugin.error}" for plugin in registry.plugins if plugin.error]
    yield "plugins", not broken, False, "; ".join(broken) or f"{len(registry.plugins)} loaded"
