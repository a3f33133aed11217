"""The application: a group of commands, and how it ends when something goes wrong."""

import os
import sys
from collections import UserDict
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from posbench.cli.commands import COMMANDS
from posbench.cli.console import out, say
from posbench.core.errors import Interrupted, PosbenchError, UsageError
from posbench.core.version import __version__

#: Plain help fits any width and ASCII, and does not take the defaults in brackets for markup.
_STYLE: Any = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
#: The exception of a wrong option; typer does not export it by name.
UsageException: Any = typer.BadParameter.__base__
#: Characters to a line where no terminal sets a width, so that programs read whole lines.
UNBOUNDED = 100_000


class LazyCommands(UserDict[str, Any]):
    """Commands by name; the module of a command is imported when the command is looked up."""

    def __getitem__(self, name: str) -> Any:
        module, _, function = super().__getitem__(name).function.partition(":")
        command = typer.Typer(**_STYLE)
        command.command(name)(getattr(import_module(f"posbench.cli.{module}"), function))
        return typer.main.get_command(command)


class Group(TyperGroup):
    """The group of all commands; its help imports none of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List each command with its whole summary, which click would shorten."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


app = typer.Typer(
    cls=Group,
    help="How much absolute position do a network's features carry, and is it the padding that tells them?",
    **_STYLE,
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"posbench {__version__}")
    elif context.invoked_subcommand is None:
        out.print(context.get_help(), soft_wrap=True)


def call() -> None:
    """Run the command line and exit; an error of the user is one line on standard error, without a traceback."""
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = UNBOUNDED
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _report("interrupted", Interrupted.exit_code)
    except PosbenchError as error:
        code = _report(error, error.exit_code)
    except UsageException as error:
        code = _report(error.format_message(), UsageError.exit_code)
    except BrokenPipeError:
        # The reader has stopped reading, as `head` does: that is no error.
        _discard_output()
        code = 0
    except OSError as error:
        _discard_output()
        where = repr(error.filename) if error.filename else "standard output"
        code = _report(f"{where} cannot be read or written ({error.strerror or error})", UsageError.exit_code)
    else:
        if code == Interrupted.exit_code:  # typer turns an interruption into an exit code without a message
            say("posbench: interrupted", "red")
    sys.exit(code)


def _report(message: object, code: int) -> int:
    say(f"posbench: {message}", "red")
    return code


def _discard_output() -> None:
    """Discard what is still buffered for standard output: writing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
