"""Commands about what a store holds."""

from collections.abc import Iterable
from json import dumps as json_text
from pathlib import Path
from typing import Annotated, Any

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
from posbench.core.files import write_atomically
from posbench.plugin.components import Metric, Target
from posbench.report.published import published as published_table


def _rows(store: Path) -> list[dict[str, Any]]:
    from posbench.report.rows import rows
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        return rows(opened.records())


def _job_rows(store: Path) -> list[dict[str, Any]]:
    from posbench.report.rows import job_row
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        return [job_row(reading) for reading in opened.measurements()]


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

    if by not in BY:
        raise UsageError(f"--by {by!r}: choose {' or '.join(BY)}")
    output.check(store, csv=csv, json=json, markdown=markdown)
    rows = _rows(store)
    found = registry()
    present = [name for name in found.names("metric") if any(name in row for row in rows)]
    chosen = found.get(Metric, metric or next(iter(present), "spc"))
    if metric and present and chosen.name not in present:
        raise UsageError(f"{str(store)!r} holds no {chosen.name}: `posbench run --metrics {chosen.name} …` adds it")
    beside = published_table(published) if published else None
    output.publish(rows, chosen, csv=csv, json=json, by=by, markdown=markdown, beside=beside, of_jobs=_job_rows(store))
    if reach and not json and "-" not in (csv, markdown):
        from posbench.report import terminal as render
        from posbench.report.reaches import reaches

        out.print(render.reaches(reaches(rows)))


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
    from posbench.report import boards
    from posbench.report import images as drawing
    from posbench.report import rows as leaderboard
    from posbench.report import terminal as render

    output.check(store, csv=csv, json=json)
    rows = _job_rows(store)
    if not rows:
        raise UsageError(f"{str(store)!r} holds none: `posbench run --metrics modes …` adds them")
    text = leaderboard.to_csv(rows, leaderboard.JOB_COLUMNS)
    if csv == "-":
        write(text)
    elif csv is not None:
        write_atomically(Path(csv), text)
    if json:
        write(json_text([{name: row[name] for name in leaderboard.JOB_COLUMNS} for row in rows], indent=1) + "\n")
    elif csv != "-":
        for board in boards.job_boards(rows):
            out.print(render.board(board))
        for title, maps in _pictures(store) if pictures else ():
            out.print(f"\n{title}")
            out.print(drawing.Drawing(maps, common=False))


def _pictures(store: Path) -> Iterable[tuple[str, list[tuple[str, Any]]]]:
    """The pictures of each metric of each job, side by side, each with its title."""
    import numpy as np

    from posbench.report.rows import job_row
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        found = [one for one in opened.measurements() if one.measurement.picture]
    titles: dict[str, list[tuple[str, Any]]] = {}
    for one in found:
        row, columns = job_row(one), one.measurement.columns or 1
        images = row["images"] if row["images"] == row["test_images"] else f"{row['images']} → {row['test_images']}"
        title = f"{row['metric']}: {row['backbone']} ({row['weights']}), {row['padding']}, {images}"
        picture = np.frombuffer(one.measurement.picture or b"", "<f4").reshape(-1, columns)
        # Several square maps stand one below the other.
        for number, start in enumerate(range(0, len(picture), columns), 1):
            name = f"tap {row['tap']}" if row["tap"] != "all" else f"no. {number}"
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
    from posbench.report import terminal as render

    first, second = (differences.side(text, store) for text in (a, b))
    found = differences.compare(first, second, metric or "spc")
    if json:
        write(differences.to_json(found) + "\n")
    else:
        out.print(render.differences(found))


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
    from posbench.report import boards, labels
    from posbench.report import images as drawing
    from posbench.report import terminal as render
    from posbench.report.rows import columns, rows
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        record = opened.find(cell)
        provenance = opened.provenance(record.run_id)
        every = rows(opened.records())
    number = next(i for i, row in enumerate(every) if row["cell_id"] == record.cell_id)
    values = every[number]
    maps = _maps(record)
    if png:
        if not maps:
            raise UsageError(
                f"cell {record.cell_id[:12]} has no map to draw: it {values['status']} ({values['reason']})"
            )
        write_atomically(png, drawing.png(maps, labels.cell_title(values), f"value drawn for {values['target']}"))
    lines = [[name, _flat(values[name])] for name in columns([values]) if values.get(name) not in (None, "")]
    out.print(render.plain(["cell", ""], lines))
    verdict = verdicts(every)[number]
    if verdict and verdict.evidence:
        out.print()
        out.print(render.evidence(verdict))
    for board in boards.control_boards([values, *(r for r in every if r["control_of"] == record.cell_id)], "spc"):
        out.print()
        out.print(render.board(board))
    if maps:
        out.print()
        out.print(drawing.Drawing(maps))
    out.print()
    out.print(render.plain(["provenance", ""], [[key, _flat(value)] for key, value in sorted(provenance.items())]))


def _maps(record: Any) -> list[tuple[str, list[list[float]]]]:
    """What a cell's readout draws in the mean, and what it should; nothing where nothing was drawn."""
    from posbench.report.galleries import drawn_by
    from posbench.report.pictures import square

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
        from posbench.report import html as reports

        try:
            files["report.html"] = reports.content(store, metrics, found.every(Target), warn)
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
    alike = f"; {made.duplicates} were found more than once, alike" if made.duplicates else ""
    mended = f"; {made.repaired} had failed in one store and not in another" if made.repaired else ""
    out.print(f"{len(stores)} stores joined in {str(output)!r}: {made.cells} cells{alike}{mended}")
