"""What is well and what is missing on this machine, for `posbench doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from posbench.bench.resolve import BARE_RUN
from posbench.core.device import resolve_device, resolve_precision
from posbench.core.errors import MissingError, one_line
from posbench.core.version import DISTRIBUTION, __version__
from posbench.network.weights import Request, hub_answers, resolve
from posbench.plugin.components import Backbone, Images
from posbench.plugin.registry import load_registry

#: Bytes that a folder should have free: features of a large run lie on disk.
STATUS_BYTES = 2**30
_REQUIREMENT = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: its name.
        state: `ok`; `missing`, where a bare run cannot work so; `note`, where it can.
        detail: what was found, or what to do.
    """

    what: str
    state: str
    detail: str


def checks() -> Iterator[Check]:
    """Looks at packages, torch, device, weights, photographs, hub, disk, extras and plugins, one after the other."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("timm", "numpy", "pandas"))
    yield Check("python", "ok", f"{platform.python_version()}, posbench {__version__}, {packages}")
    yield _torch()
    device = resolve_device("auto")
    yield Check("device", "ok", f"{device}, {resolve_precision('auto', device)}")
    found = load_registry()
    for name in BARE_RUN:
        # Not only named: a hub within reach would do as well as a package.
        weights, problem = resolve(found.get(Backbone, name), Request(), [0], download=False)
        yield Check(f"weights of {name}", "missing" if problem else "ok", problem or weights[0].label)
    try:
        files = found.get(Images, "photos").photographs
        lost = [path.name for path in (files() if files else []) if not path.is_file()]
        yield Check(
            "photographs", "missing" if lost else "ok", f"not found: {', '.join(lost)}" if lost else "all there"
        )
    except MissingError as error:
        yield Check("photographs", "missing", str(error))
    hub = hub_answers()
    out_of_reach = "out of reach: trained weights come from packages and files alone"
    yield Check("model hub", "ok" if hub else "note", "answers" if hub else out_of_reach)
    yield _disk("disk, this folder", Path.cwd())
    yield _disk("disk, large features", Path(tempfile.gettempdir()))
    yield from _extras()
    broken = [f"{plugin.label}: {plugin.error}" for plugin in found.plugins if plugin.error]
    yield Check("plugins", "note" if broken else "ok", "; ".join(broken) or f"{len(found.plugins)} loaded")


def _torch() -> Check:
    """Imports torch, as any run does; a build that does not load here is missing."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "missing", f"does not load ({one_line(error)}): pip install --force-reinstall torch")
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} processors"
    return Check("torch", "ok", f"{torch.__version__}, {threads}; OMP_NUM_THREADS sets how many")


def _disk(what: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    room = f"{free / 2**30:.1f} GiB free in {folder}"
    return Check(what, "ok", room) if free >= STATUS_BYTES else Check(what, "note", f"{room}: large runs need more")


def _extras() -> Iterator[Check]:
    """Each extra of posbench, by what its own metadata says that it needs."""
    needs: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or []:
        if match := _REQUIREMENT.match(requirement):
            needs.setdefault(match[2], []).append(match[1])
    for extra, packages in sorted(needs.items()):
        lost = [name for name in packages if not _installed(name)]
        detail = f"without {', '.join(lost)}: pip install 'position-bench[{extra}]'" if lost else "installed"
        yield Check(f"extra {extra}", "note" if lost else "ok", detail)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
