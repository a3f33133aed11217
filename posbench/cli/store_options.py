"""Options that several commands on stored results have."""

from pathlib import Path
from typing import Annotated

import typer

from posbench.bench.config import RunConfig

#: Where `posbench run` stores results by default.
STORE = RunConfig.store

StoreOption = Annotated[Path, typer.Option("--store", help="The SQLite file that holds the results.")]
CsvOption = Annotated[str | None, typer.Option("--csv", metavar="FILE|-", help="Write the rows as CSV.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the rows as JSON alone.")]
PublishedOption = Annotated[
    str | None, typer.Option("--published", metavar="TABLE", help="Show a paper's numbers beside ours.")
]
MetricOption = Annotated[str | None, typer.Option("--metric", help="The metric to rank by.")]
