"""The application, its two consoles, and the options that several commands have."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from posbench import __version__
from posbench.errors import Interrupted, PosbenchError, UsageError
from posbench.processes import interruptible
from posbench.registry import Registry, load_registry

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
        with interruptible():
            code = app(standalone_mode=False)
            sys.stdout.flush()
        if code == Interrupted.exit_code:  # what typer makes of it where no command says more
            say("posbench: interrupted", "red")
    except KeyboardInterrupt:
        sys.exit(_told("interrupted", Interrupted.exit_code))
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
    say(f"posbench: {message}", "red")
    return code


def say(message: str, style: str = "") -> None:
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def registry() -> Registry:
    found = load_registry()
    for plugin in found.plugins:
        if plugin.error:
            say(f"posbench: plugin {plugin.label} is left out ({plugin.error}); see `posbench plugins`", "yellow")
    return found


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"posbench {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def names(what: str) -> Any:
    return typer.Option(metavar="A,B", help=what)
