"""Commands about what a store holds."""

from collections.abc import Iterable
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posbench.cli import output
from posbench.cli.app import (
    STORE,
    CsvOption,
    JsonOption,
    MetricOption,
    PublishedOption,
    StoreOption,
    app,
    out,
    registry,
    warn,
    write,
)
from posbench.core.errors import MissingError, UsageError
from posbench.core.files import write_whole
from posbench.plugin.components import Metric, Target

if TYPE_CHECKING:
    from posbench.bench.row import JobRow, Row


def _rows(store: Path) -> "list[Row]":
    from posbench.report.rows import rows
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        return rows(opened.records())


def _job_rows(store: Path) -> "list[JobRow]":
    from posbench.report.rows import job_row
    from posbench.store.store import Store

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
    from posbench.report.boards import BY
    from posbench.report.literature import published as published_table

    if by not in BY:
        raise UsageError(f"--by {by!r}: choose {' or '.join(BY)}")
    output.check(store, csv=csv, json=json, markdown=markdown)
    rows = _rows(store)
    found = registry()
    present = [name for name in found.names("metric") if any(name in row.scores for row in rows)]
    chosen = found.get(Metric, metric or next(iter(present), "spc"))
    if metric and present and chosen.name not in present:
        raise UsageError(f"{str(store)!r} holds no {chosen.name}: `posbench run --metrics {chosen.name} …` adds it")
    beside = published_table(published) if published else None
    output.publish(rows, chosen, csv=csv, json=json, by=by, markdown=markdown, beside=beside, of_jobs=_job_rows(store))
    if reach and not json and "-" not in (csv, markdown):
        from posbench.report import terminal
        from posbench.report.boards import reaches

        out.print(terminal.reaches(reaches(rows)))


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
    from posbench.bench.row import JOB_COLUMNS
    from posbench.report import terminal
    from posbench.report.control_boards import job_boards
    from posbench.report.images import Drawing
    from posbench.report.rows import to_csv

    output.check(store, csv=csv, json=json)
    rows = _job_rows(store)
    if not rows:
        raise UsageError(f"{str(store)!r} holds none: `posbench run --metrics modes …` adds them")
    text = to_csv(rows, JOB_COLUMNS)
    if csv == "-":
        write(text)
    elif csv is not None:
        write_whole(Path(csv), text)
    if json:
        write(json_text([dict(row) for row in rows], indent=1) + "\n")
    elif csv != "-":
        for board in job_boards(rows):
            out.print(terminal.board(board))
        for title, maps in _pictures(store) if pictures else ():
            out.print(f"\n{title}")
            out.print(Drawing(maps, common=False))


def _pictures(store: Path) -> Iterable[tuple[str, list[tuple[str, Any]]]]:
    """The pictures of each metric of each job, side by side, each with its title."""
    import numpy as np

    from posbench.report.rows import job_row
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        found = [one for one in opened.readings() if one.reading.picture]
    titles: dict[str, list[tuple[str, Any]]] = {}
    for one in found:
        row, columns = job_row(one), one.reading.columns or 1
        title = f"{row.metric}: {row.backbone} ({row.weights}), {row.padding}, {row.sources}"
        picture = np.frombuffer(one.reading.picture or b"", "<f4").reshape(-1, columns)
        # Several square maps stand one below the other.
        for number, start in enumerate(range(0, len(picture), columns), 1):
            name = f"tap {row.tap}" if row.tap != "all" else f"no. {number}"
            titles.setdefault(title, []).append((name, picture[start : start + columns].tolist()))
    return titles.items()


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(help="A store, published folder or CSV file, or columns such as padding=zero,target=H.")
    ],
    b: Annotated[str, typer.Argument(help="What it is held against.")],
    store: StoreOption = STORE,
    metric: MetricOption = None,
    json: JsonOption = False,
) -> None:
    """Show the differences between two sides, cell by cell, on the same photographs."""
    from posbench.report import compare as differences
    from posbench.report import terminal

    first, second = (differences.side(text, store) for text in (a, b))
    found = differences.compare(first, second, metric or "spc")
    if json:
        write(differences.to_json(found) + "\n")
    else:
        out.print(terminal.differences(found))


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="A cell's id, or enough of its start.")],
    store: StoreOption = STORE,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the maps as a picture, too. [needs the extra `report`]")
    ] = None,
) -> None:
    """Draw a cell's mean predicted map beside its target, and tell how it was made."""
    from posbench.bench.verdict import verdicts
    from posbench.report import images, terminal
    from posbench.report.control_boards import control_boards
    from posbench.report.labels import cell_title
    from posbench.report.rows import columns, rows
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        record = opened.find(cell)
        provenance = opened.provenance(record.run_id)
        every = rows(opened.records())
    number = next(i for i, row in enumerate(every) if row.cell_id == record.cell_id)
    values = every[number]
    maps = _maps(record)
    if png:
        if not maps:
            raise UsageError(f"cell {record.cell_id[:12]} has no map to draw: it {values.status} ({values.reason})")
        write_whole(png, images.png(maps, cell_title(values), f"value drawn for {values.target}"))
    lines = [[name, _flat(values[name])] for name in columns([values]) if values.get(name) not in (None, "")]
    out.print(terminal.plain(["cell", ""], lines))
    verdict = verdicts(every)[number]
    if verdict and verdict.evidence:
        out.print()
        out.print(terminal.evidence(verdict))
    for board in control_boards([values, *(r for r in every if r.control_of == record.cell_id)], "spc"):
        out.print()
        out.print(terminal.board(board))
    if maps:
        out.print()
        out.print(images.Drawing(maps))
    out.print()
    out.print(terminal.plain(["provenance", ""], [[key, _flat(value)] for key, value in sorted(provenance.items())]))


def _maps(record: Any) -> list[tuple[str, list[list[float]]]]:
    """What a cell's readout draws in the mean, and what it should; nothing where nothing was drawn."""
    from posbench.report.galleries import drawn_by
    from posbench.report.images import square

    if not record.outcome.mean_map:
        return []
    drawn = square(record.outcome.mean_map, "<f4")
    target = drawn_by(registry().every(Target), warn)(record.outcome.identity, len(drawn))
    beside = [] if target is None else [(f"target {record.outcome.identity['target']['name']}", target.tolist())]
    return [("mean prediction", drawn.tolist()), *beside]


def _flat(value: object) -> str:
    """A value in a line; of a number, four digits, since `--csv` has all."""
    if isinstance(value, float):
        return f"{value + 0:.4g}"  # adding zero turns −0 into 0
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; made if it is not there.")],
    store: StoreOption = STORE,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="With report.html, which shows small test photographs.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is published there of another store, too.")
    ] = False,
) -> None:
    """Write a store's results as files to commit: tables, cells, a report, and provenance called by its own hash."""
    from posbench.report.publish import contents
    from posbench.store import bundle as publication

    found = registry()
    metrics = found.every(Metric)
    files = contents(store, metrics)
    if report:
        from posbench.report.html import content

        try:
            files["report.html"] = content(store, metrics, found.every(Target), warn)
        except MissingError as error:
            warn(f"published without report.html: {error}")
    vouching = publication.write(folder, files, force=force)
    out.print(f"{', '.join(sorted(files))} and {vouching.name} are in {str(folder)!r}")


@app.command()
def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Stores and published folders, which stay as they are."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The store to write.")],
) -> None:
    """Join stores, such as the shards of a run; refuses different results for one cell."""
    from posbench.store.merge import merge as merged

    made = merged(stores, output)
    alike = f"; {made.alike} were found more than once, alike" if made.alike else ""
    mended = f"; {made.mended} had failed in one store and not in another" if made.mended else ""
    out.print(f"{len(stores)} stores joined in {str(output)!r}: {made.cells} cells{alike}{mended}")
