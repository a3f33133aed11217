"""Commands that look for problems: of this machine, and of a network's padding."""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from posbench.bench.resolve import BARE_RUN
from posbench.cli.console import out, registry
from posbench.core.device import resolve_device, resolve_precision
from posbench.core.errors import MissingError, one_line
from posbench.core.version import DISTRIBUTION, __version__
from posbench.network.weights import Request, hub_answers, resolve
from posbench.plugin.components import Backbone, Images
from posbench.plugin.registry import Registry, load_registry

#: Bytes that a folder should have free: a large run stores features on disk.
ENOUGH_BYTES = 2**30
_REQUIREMENT = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")


def audit(
    backbone: Annotated[str, typer.Argument(help="The network to look into.")],
    image_size: Annotated[int, typer.Option(min=8, max=4096, help="Side of the image, in pixels.")] = 224,
) -> None:
    """Show every padded operation of a network, and whether its padding is even; fails if a strategy would miss one."""
    record = registry().get(Backbone, backbone)
    from posbench.network.audit import even_sizes, operations
    from posbench.report import terminal

    padded = operations(record, image_size)
    lines = [
        [
            operation.layer or "(the network)",
            operation.operation,
            *(f"{down}×{across}" for down, across in (operation.kernel, operation.stride)),
            ", ".join(map(str, operation.sides)),
            f"{operation.size[0]}×{operation.size[1]}",
            "uneven" if operation.uneven else "even",
        ]
        for operation in padded
    ]
    header = ["layer", "operation", "kernel", "stride", "left, right, top, bottom", "map", "padding"]
    out.print(terminal.plain(header, lines))
    uneven = sum(operation.uneven for operation in padded)
    out.print(
        f"{len(padded)} padded operations at {image_size} px, {uneven} of them uneven; a strategy reaches them all"
    )
    if uneven:
        nearest = " and ".join(f"{size} px" for size in even_sizes(record, image_size))
        out.print(f"nearest sizes at which all are even: {nearest or 'none within 64 px'}")


def doctor() -> None:
    """Check packages, device, weights, photographs, hub, disk and plugins; exit code 4 if a bare run cannot work."""
    from posbench.report import terminal

    results = list(checks())
    out.print(
        terminal.plain(["what", "state", "detail"], [[check.what, check.state, check.detail] for check in results])
    )
    if any(check.state == "missing" for check in results):
        raise typer.Exit(MissingError.exit_code)


@dataclass(frozen=True)
class Check:
    """The result of one check of this machine.

    Attributes:
        what: the thing that is checked.
        state: `ok`, `missing` if a bare run cannot work, or `note` if it can.
        detail: a description of the thing, or the fix.
    """

    what: str
    state: str
    detail: str


def checks() -> Iterator[Check]:
    """Check packages, torch, device, weights, photographs, hub, disk, extras and plugins, in turn."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("timm", "numpy", "pandas"))
    yield Check("python", "ok", f"{platform.python_version()}, posbench {__version__}, {packages}")
    yield _torch()
    device = resolve_device("auto")
    yield Check("device", "ok", f"{device}, {resolve_precision('auto', device)}")
    loaded = load_registry()
    for name in BARE_RUN:
        # Without download, a hub that could be reached does not count in place of a package.
        weights, problem = resolve(loaded.get(Backbone, name), Request(), [0], download=False)
        yield Check(f"weights of {name}", "missing" if problem else "ok", problem or weights[0].label)
    yield _photographs(loaded)
    hub = hub_answers()
    out_of_reach = "out of reach: trained weights come from packages and files alone"
    yield Check("model hub", "ok" if hub else "note", "answers" if hub else out_of_reach)
    yield _disk("disk, this folder", Path.cwd())
    yield _disk("disk, large features", Path(tempfile.gettempdir()))
    yield from _extras()
    broken = [f"{plugin.label}: {plugin.error}" for plugin in loaded.plugins if plugin.error]
    yield Check("plugins", "note" if broken else "ok", "; ".join(broken) or f"{len(loaded.plugins)} loaded")


def _photographs(loaded: Registry) -> Check:
    try:
        files = loaded.get(Images, "photos").photographs
        missing = [path.name for path in (files() if files else []) if not path.is_file()]
    except MissingError as error:
        return Check("photographs", "missing", str(error))
    detail = f"not found: {', '.join(missing)}" if missing else "all there"
    return Check("photographs", "missing" if missing else "ok", detail)


def _torch() -> Check:
    """Import torch, as any run does; a build that does not load counts as missing."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "missing", f"does not load ({one_line(error)}): pip install --force-reinstall torch")
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} processors"
    return Check("torch", "ok", f"{torch.__version__}, {threads}; OMP_NUM_THREADS sets how many")


def _disk(what: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    room = f"{free / 2**30:.1f} GiB free in {folder}"
    return Check(what, "ok", room) if free >= ENOUGH_BYTES else Check(what, "note", f"{room}: large runs need more")


def _extras() -> Iterator[Check]:
    """Check the packages of each extra in posbench's own metadata."""
    needs: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or []:
        if match := _REQUIREMENT.match(requirement):
            needs.setdefault(match[2], []).append(match[1])
    for extra, packages in sorted(needs.items()):
        missing = [name for name in packages if not _installed(name)]
        detail = f"without {', '.join(missing)}: pip install 'position-bench[{extra}]'" if missing else "installed"
        yield Check(f"extra {extra}", "note" if missing else "ok", detail)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
