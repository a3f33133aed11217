"""Commands that turn stores into reports, published folders and other stores."""

from pathlib import Path
from typing import Annotated

import typer

from posbench.cli.console import out, registry, warn
from posbench.cli.store_options import STORE, StoreOption
from posbench.core.errors import MissingError
from posbench.core.files import check_destinations, write_atomically
from posbench.plugin.components import Metric, Target


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
    from posbench.store import bundle

    loaded = registry()
    metrics = loaded.every(Metric)
    controls = loaded.control_catalogue()
    files = contents(store, metrics, controls)
    if report:
        from posbench.report import html

        try:
            files["report.html"] = html.content(store, metrics, loaded.every(Target), controls, warn)
        except MissingError as error:
            warn(f"published without report.html: {error}")
    provenance = bundle.write(folder, files, force=force)
    out.print(f"{', '.join(sorted(files))} and {provenance.name} are in {str(folder)!r}")


def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Stores and published folders, which stay as they are."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The store to write.")],
) -> None:
    """Join stores, such as the shards of a run; refuses different results for one cell."""
    from posbench.store.merge import merge as merge_stores

    merged = merge_stores(stores, output)
    duplicates = f"; {merged.duplicates} were found more than once, alike" if merged.duplicates else ""
    repaired = f"; {merged.repaired} had failed in one store and not in another" if merged.repaired else ""
    out.print(f"{len(stores)} stores joined in {str(output)!r}: {merged.cells} cells{duplicates}{repaired}")


def report(
    store: StoreOption = STORE,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write a store's results as one HTML page. [needs the extra `report`]"""
    from posbench.report import html

    check_destinations(store, {"--out": str(to)})
    loaded = registry()
    write_atomically(
        to, html.content(store, loaded.every(Metric), loaded.every(Target), loaded.control_catalogue(), warn)
    )
    out.print(f"{str(to)!r} is written: open it in a browser")
