"""The application, its two consoles, and the options that several commands have."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from posbench.core.errors import Interrupted, PosbenchError, UsageError
from posbench.core.text import ascii_form, has_unicode, printable
from posbench.core.version import __version__
from posbench.plugin.registry import Registry, load_registry


class Commands(TyperGroup):
    """The commands, each with its whole first sentence in the help, where click would cut it short."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, (one.help or "").split("\n\n")[0]) for name, one in found if one])


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: it fits any width and ASCII, and does not take the defaults in brackets for markup.
    rich_markup_mode=None,
    help="How much absolute position do a network's features carry, and is it the padding that tells them?",
)
#: What a wrong option raises; typer does not export it by name.
UsageException: Any = typer.BadParameter.__base__
#: Characters to a line where no terminal sets a width, so that lines stay whole for whatever reads them.
UNBOUNDED = 100_000


class Screen(Console):
    """A console that writes ASCII alone, before it lays anything out, where Unicode cannot be shown."""

    @property
    def encoding(self) -> str:
        return super().encoding if has_unicode(super().encoding) else "ascii"

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints objects as `Console.print` does; text is text, without markup and colours of its own."""
        form = ascii_form if self.options.ascii_only else printable
        said = (Text(form(one)) if isinstance(one, str) else one for one in objects)
        super().print(*said, **options)


out = Screen()
err = Screen(stderr=True)

StoreOption = Annotated[Path, typer.Option("--store", help="The SQLite file that holds the results.")]
CsvOption = Annotated[str | None, typer.Option("--csv", metavar="FILE|-", help="Write the rows as CSV.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the rows as JSON alone.")]
PublishedOption = Annotated[
    str | None, typer.Option("--published", metavar="TABLE", help="Show a paper's numbers beside ours.")
]
MetricOption = Annotated[str | None, typer.Option("--metric", help="The metric to rank by.")]
STORE = Path("posbench.db")


def call() -> None:
    """Run the command that was given. A user's mistake is one line on standard error and an exit code, no traceback."""
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = UNBOUNDED
    try:
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
        # What is still to be written to a full disk would fail once more at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = repr(error.filename) if error.filename else "standard output"
        sys.exit(_told(f"{where} cannot be read or written ({error.strerror or error})", UsageError.exit_code))
    sys.exit(code)


def _told(message: object, code: int) -> int:
    say(f"posbench: {message}", "red")
    return code


def write(text: str) -> None:
    """Send what programs read, such as CSV, to standard output: UTF-8 as in files, whatever the terminal shows."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def say(message: str, style: str = "") -> None:
    err.print(str(message), style=style, soft_wrap=True)


def warn(message: str) -> None:
    """What goes wrong and stops nothing."""
    say(f"posbench: {message}", "yellow")


def registry() -> Registry:
    try:
        found = load_registry()
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted {stop}") from None
    for plugin in found.plugins:
        if plugin.error:
            warn(f"plugin {plugin.label} is left out ({plugin.error}); see `posbench plugins`")
    return found


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"posbench {__version__}")
    elif context.invoked_subcommand is None:
        out.print(context.get_help(), soft_wrap=True)


def names(what: str) -> Any:
    return typer.Option(metavar="A,B", help=what)
