"""Commands on what can be named: components, plugins and experiments."""

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from posbench.bench import experiments
from posbench.cli.console import out, registry, write
from posbench.core.errors import unknown
from posbench.plugin.components import Backbone
from posbench.plugin.registry import KINDS, Registry, load_registry, plural

EXPERIMENTS = "experiments"
HERE = Path()


def list_(
    kind: Annotated[str | None, typer.Argument(help="backbones, paddings, images and so on")] = None,
) -> None:
    """Show the components that can be named, all or of one kind."""
    kinds = {plural(singular): singular for singular in KINDS}
    if kind is not None and kind not in (*kinds, EXPERIMENTS):
        raise unknown("kind", kind, [*kinds, EXPERIMENTS])
    loaded = registry()
    for title, singular in kinds.items():
        if kind in (None, title):
            _list_components(loaded, title, singular, shorten=kind is None)
    if kind in (None, EXPERIMENTS):
        _print_table([EXPERIMENTS, "summary"], [[name, experiments.summary(name)] for name in experiments.names()])
    if kind in (None, "images"):
        out.print("Any folder of images is a source too, by its path.")


def _list_components(loaded: Registry, title: str, singular: str, *, shorten: bool) -> None:
    """Print the components of one kind; a shortened list only counts the backbones that belong to a family."""
    lines, families = [], Counter[str]()
    for entry in loaded.entries(singular):
        component = entry.component
        if shorten and isinstance(component, Backbone) and component.family:
            families[component.family] += 1
        else:
            lines.append([component.name, component.summary, entry.plugin.label])
    more = (f"… and {count} {family} models: `posbench list {title}`" for family, count in families.items())
    _print_table([title, "summary", "plugin"], lines, more)


def _print_table(header: list[str], lines: list[list[str]], notes: Iterable[str] = ()) -> None:
    from posbench.report import terminal

    out.print(terminal.plain(header, lines))
    for note in notes:
        out.print(note)
    out.print()


def experiment(name: Annotated[str, typer.Argument(help="One of `posbench list experiments`.")]) -> None:
    """Print an experiment's configuration, to copy and change."""
    write(experiments.path(name).read_text(encoding="utf-8"))


def plugins() -> None:
    """Show the plugins found, what they offer, and why one could not be loaded."""
    from posbench.report import terminal

    lines = [
        [plugin.distribution, plugin.version, plugin.name, plugin.error or ", ".join(plugin.hooks)]
        for plugin in load_registry().plugins
    ]
    out.print(terminal.plain(["distribution", "version", "plugin", "hooks, or error"], lines))


def new_plugin(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Name of the component and of its distribution, such as my-padding.")],
    into: Annotated[Path, typer.Option(help="The folder in which to make it.")] = HERE,
) -> None:
    """Write a plugin to begin with: it installs, is found, and passes its own tests."""
    from posbench.plugin.scaffold import usage, write_plugin

    folder = write_plugin(kind, name, registry(), into)
    singular = next(known for known in KINDS if kind in (known, plural(known)))
    where = str(folder) if folder.is_absolute() else f"./{folder}"
    for line in (
        f"{str(folder)!r} holds a plugin that works as it is. Next:",
        f"  pip install -e {shlex.quote(where)}",
        f"  pytest {shlex.quote(str(folder))}",
        f"  {usage(singular, name)}",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
