"""The generator of new plugins: small distributions that can be installed and pass their own tests."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from posbench.core.errors import UsageError, unknown
from posbench.core.files import user_path
from posbench.plugin.registry import KINDS, Registry, plural

#: Names that are valid for distributions and components and, with `_` for `-`, for modules.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: The command that tries a component of each kind; the backbone is small, with weights in the extra `offline`.
_COMMANDS = {
    "backbone": "posbench run --backbones $name",
    "padding": "posbench run --backbones tf_efficientnet_lite0 --paddings zero,$name",
    "images": "posbench run --backbones tf_efficientnet_lite0 --images $name",
    "target": "posbench run --backbones tf_efficientnet_lite0 --targets H,$name",
    "metric": "posbench run --backbones tf_efficientnet_lite0 --metrics spc,$name",
    "readout": "posbench run --backbones tf_efficientnet_lite0 --readouts ridge,$name",
    "control": "posbench run --backbones tf_efficientnet_lite0 --controls $name",
    "executor": "posbench run --backbones tf_efficientnet_lite0 --executor $name",
}


def write_plugin(kind: str, name: str, registry: Registry, into: Path) -> Path:
    """Write a distribution with one component into a new folder in `into`, and return the new folder.

    Args:
        kind: the kind of the component, in the singular or the plural.
        name: the name of the component and of the distribution, such as `my-padding`; the module is `my_padding`.
        registry: the known components, whose names are taken.

    Raises:
        UsageError: if the kind is unknown, the name is invalid or taken, or the folder exists or cannot be created.
    """
    singular = next((known for known in KINDS if kind in (known, plural(known))), None)
    if singular is None:
        raise unknown("kind", kind, KINDS)
    module = name.replace("-", "_")
    _check_name(singular, name, module, registry)
    folder = user_path(str(into)) / name
    kind = "source of images" if singular == "images" else singular
    fields = {"name": name, "module": module, "kind": kind, "use": usage(singular, name)}
    contents = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{singular}.py",
        f"tests/test_{module}.py": f"test_{singular}.py",
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{str(folder)!r} exists: give another name, or another folder with --into") from error
    except OSError as error:
        raise UsageError(f"{str(folder)!r} cannot be made ({error.strerror}): name a folder with --into") from error
    try:
        (folder / "tests").mkdir()
        for path, template in contents.items():
            text = files("posbench.plugin").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
            (folder / path).write_text(Template(text).substitute(fields), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"{str(folder)!r} cannot be made ({error.strerror}): name a folder with --into") from error
    return folder


def usage(kind: str, name: str) -> str:
    """Return the command that tries a component of this kind (singular)."""
    return Template(_COMMANDS[kind]).substitute(name=name)


def _check_name(kind: str, name: str, module: str, registry: Registry) -> None:
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise UsageError(f"{name[:80]!r} is no name for a plugin: give small letters, digits and -, as my-{kind}")
    if iskeyword(module) or module in sys.stdlib_module_names:
        raise UsageError(f"{name!r} would make a module that Python has already: give another name, as my-{name}")
    if find_spec(module) is not None:
        raise UsageError(f"{name!r} would hide the installed module {module!r}: give another name, as my-{name}")
    if name in registry.names(kind):
        raise UsageError(f"there is a {kind} {name!r} already: give another name, as my-{name}")
