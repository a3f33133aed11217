"""Commands about what there is: components, plugins, experiments, a network's padding, this machine."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from posbench.bench import experiments
from posbench.cli.app import app, out, registry, write
from posbench.core.errors import MissingError, unknown
from posbench.plugin.components import Backbone
from posbench.plugin.registry import KINDS, load_registry, plural


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="backbones, paddings, images and so on")] = None,
) -> None:
    """Show the components that can be named, all or of one kind."""
    from posbench.report import terminal as render

    kinds = {plural(singular): singular for singular in KINDS}
    if kind is not None and kind not in (*kinds, EXPERIMENTS):
        raise unknown("kind", kind, [*kinds, EXPERIMENTS])
    found = registry()
    for title, singular in kinds.items():
        if kind not in (None, title):
            continue
        entries = found.entries(singular)
        shown = [entry for entry in entries if kind or entry.component.summary != TIMM_SUMMARY]
        lines = [[e.component.name, e.component.summary, e.plugin.label] for e in shown]
        out.print(render.plain([title, "summary", "plugin"], lines))
        if len(shown) < len(entries):
            out.print(f"… and {len(entries) - len(shown)} timm models: `posbench list {title}`")
        out.print()
    if kind in (None, EXPERIMENTS):
        lines = [[name, experiments.summary(name)] for name in experiments.names()]
        out.print(render.plain([EXPERIMENTS, "summary"], lines))
        out.print()
    if kind in (None, "images"):
        out.print("Any folder of images is a source too, by its path.")


TIMM_SUMMARY = "a timm model"
EXPERIMENTS = "experiments"


@app.command()
def experiment(name: Annotated[str, typer.Argument(help="One of `posbench list experiments`.")]) -> None:
    """Print an experiment's configuration, to copy and change."""
    write(experiments.path(name).read_text(encoding="utf-8"))


@app.command()
def plugins() -> None:
    """Show the plugins found, what they offer, and why one could not be loaded."""
    from posbench.report import terminal as render

    found = load_registry()
    lines = [
        [plugin.distribution, plugin.version, plugin.name, plugin.error or ", ".join(plugin.hooks)]
        for plugin in found.plugins
    ]
    out.print(render.plain(["distribution", "version", "plugin", "hooks, or error"], lines))


@app.command()
def audit(
    backbone: Annotated[str, typer.Argument(help="The network to look into.")],
    image_size: Annotated[int, typer.Option(min=8, max=4096, help="Side of the image, in pixels.")] = 224,
) -> None:
    """Show every padded operation of a network, and whether its padding is even; fails if a strategy would miss one."""
    record = registry().get(Backbone, backbone)
    from posbench.network.audit import even_sizes, operations
    from posbench.report import terminal as render

    found = operations(record, image_size)
    lines = [
        [
            operation.layer or "(the network)",
            operation.operation,
            *(f"{down}×{across}" for down, across in (operation.kernel, operation.stride)),
            ", ".join(map(str, operation.sides)),
            f"{operation.size[0]}×{operation.size[1]}",
            "uneven" if operation.uneven else "even",
        ]
        for operation in found
    ]
    out.print(
        render.plain(["layer", "operation", "kernel", "stride", "left, right, top, bottom", "map", "padding"], lines)
    )
    uneven = sum(operation.uneven for operation in found)
    out.print(
        f"{len(found)} padded operations at {image_size} px, {uneven} of them uneven; a strategy reaches them all"
    )
    if uneven:
        nearest = " and ".join(f"{size} px" for size in even_sizes(record, image_size))
        out.print(f"nearest sizes at which all are even: {nearest or 'none within 64 px'}")


@app.command()
def doctor() -> None:
    """Check packages, device, weights, photographs, hub, disk and plugins; exit code 4 if a bare run cannot work."""
    from posbench.cli.doctor import checks
    from posbench.report import terminal as render

    found = list(checks())
    out.print(render.plain(["what", "state", "detail"], [[one.what, one.state, one.detail] for one in found]))
    if any(one.state == "missing" for one in found):
        raise typer.Exit(MissingError.exit_code)


HERE = Path()


@app.command("new-plugin")
def new_plugin(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Of the component and its distribution, such as my-padding.")],
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
