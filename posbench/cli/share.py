"""The command that writes a report."""

from pathlib import Path
from typing import Annotated

import typer

from posbench.cli.app import STORE, StoreOption, app, out, registry, warn
from posbench.plugin.components import Metric, Target


@app.command()
def report(
    store: StoreOption = STORE,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write a store's results as one HTML page. [needs the extra `report`]"""
    from posbench.core.files import check_destinations, write_whole
    from posbench.report.html import content

    check_destinations(store, {"--out": str(to)})
    found = registry()
    write_whole(to, content(store, found.every(Metric), found.every(Target), warn))
    out.print(f"{str(to)!r} is written: open it in a browser")
