"""Commands that show stored results."""

from collections.abc import Iterable
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posbench.cli import output
from posbench.cli.console import out, registry, warn, write
from posbench.cli.store_options import STORE, CsvOption, JsonOption, MetricOption, PublishedOption, StoreOption
from posbench.core.errors import UsageError
from posbench.core.files import write_atomically
from posbench.plugin.components import Metric, Target
from posbench.plugin.control import ControlCatalogue

if TYPE_CHECKING:
    from posbench.bench.records import CellRecord
    from posbench.bench.row import JobRow, Row


def _rows(store: Path, controls: ControlCatalogue) -> "list[Row]":
    from posbench.report.rows import rows
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        return rows(opened.records(), controls)


def _job_rows(store: Path) -> "list[JobRow]":
    from posbench.report.rows import job_row
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        return [job_row(record) for record in opened.measurements()]


def leaderboard(
    store: StoreOption = STORE,
    by: Annotated[str, typer.Option(metavar="padding|backbone", help="What the rows are.")] = "padding",
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
    loaded = registry()
    rows = _rows(store, loaded.control_catalogue())
    present = [name for name in loaded.names("metric") if any(name in row.scores for row in rows)]
    chosen = loaded.get(Metric, metric or next(iter(present), "spc"))
    if metric and present and chosen.name not in present:
        raise UsageError(f"{str(store)!r} holds no {chosen.name}: `posbench run --metrics {chosen.name} …` adds it")
    beside = published_table(published) if published else None
    output.publish(rows, chosen, csv=csv, json=json, by=by, markdown=markdown, beside=beside, of_jobs=_job_rows(store))
    if reach and not json and "-" not in (csv, markdown):
        from posbench.report import terminal
        from posbench.report.boards import reaches

        out.print(terminal.reaches(reaches(rows)))


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
        write_atomically(Path(csv), text)
    if json:
        write(json_text([dict(row) for row in rows], indent=1) + "\n")
    elif csv != "-":
        for board in job_boards(rows):
            out.print(terminal.board(board))
        for title, maps in _pictures(store) if pictures else ():
            out.print(f"\n{title}")
            out.print(Drawing(maps, common=False))


def _pictures(store: Path) -> Iterable[tuple[str, list[tuple[str, Any]]]]:
    """Return a title and named maps for each metric of each job whose measurement has a picture."""
    import numpy as np

    from posbench.report.rows import job_row
    from posbench.store.store import Store

    with Store(store, must_exist=True) as opened:
        records = [record for record in opened.measurements() if record.measurement.picture]
    titles: dict[str, list[tuple[str, Any]]] = {}
    for record in records:
        row, columns = job_row(record), record.measurement.columns or 1
        title = f"{row.metric}: {row.backbone} ({row.weights}), {row.padding}, {row.sources}"
        picture = np.frombuffer(record.measurement.picture or b"", "<f4").reshape(-1, columns)
        # A picture holds square maps, one below another.
        for number, start in enumerate(range(0, len(picture), columns), 1):
            name = f"tap {row.tap}" if row.tap != "all" else f"no. {number}"
            titles.setdefault(title, []).append((name, picture[start : start + columns].tolist()))
    return titles.items()


def compare(
    a: Annotated[
        str, typer.Argument(help="A store, published folder or CSV file, or columns such as padding=zero,target=H.")
    ],
    b: Annotated[str, typer.Argument(help="The side to compare it with.")],
    store: StoreOption = STORE,
    metric: MetricOption = None,
    json: JsonOption = False,
) -> None:
    """Show the differences between two sides, cell by cell, on the same photographs."""
    from posbench.report import compare, terminal

    controls = registry().control_catalogue()
    first, second = (compare.side(text, store, controls) for text in (a, b))
    differences = compare.compare(first, second, metric or "spc")
    if json:
        write(compare.to_json(differences) + "\n")
    else:
        out.print(terminal.differences(differences))


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
        related = rows(opened.related(record), registry().control_catalogue())
    row, verdict = next(
        pair for pair in zip(related, verdicts(related), strict=True) if pair[0].cell_id == record.cell_id
    )
    maps = _maps(record)
    if png:
        if not maps:
            raise UsageError(f"cell {record.cell_id[:12]} has no map to draw: it {row.status} ({row.reason})")
        write_atomically(png, images.png(maps, cell_title(row), f"value drawn for {row.target}"))
    lines = [[name, _flat(row[name])] for name in columns([row]) if row.get(name) not in (None, "")]
    out.print(terminal.plain(["cell", ""], lines))
    if verdict and verdict.evidence:
        out.print()
        out.print(terminal.evidence(verdict))
    for board in control_boards([row, *(r for r in related if r.control_of == record.cell_id)], "spc"):
        out.print()
        out.print(terminal.board(board))
    if maps:
        out.print()
        out.print(images.Drawing(maps))
    out.print()
    out.print(terminal.plain(["provenance", ""], [[key, _flat(value)] for key, value in sorted(provenance.items())]))


def _maps(record: "CellRecord") -> list[tuple[str, list[list[float]]]]:
    """Return the mean predicted map of a cell and its target, each with its name; empty without a prediction."""
    from posbench.report.galleries import drawn_by
    from posbench.report.images import square

    if not record.outcome.mean_map:
        return []
    identity, predicted = record.outcome.identity, square(record.outcome.mean_map, "<f4")
    target = drawn_by(registry().every(Target), warn)(identity, len(predicted))
    targets = [] if target is None else [(f"target {identity['target']['name']}", target.tolist())]
    return [("mean prediction", predicted.tolist()), *targets]


def _flat(value: object) -> str:
    """Return a value as one line of text; numbers have four digits, since `--csv` has all."""
    if isinstance(value, float):
        return f"{value + 0:.4g}"  # adding zero turns −0 into 0
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)
