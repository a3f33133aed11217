"""`posbench.run`: the command of this name for Python and notebooks."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import GenericAlias
from typing import Any

from posbench.bench.config import load_config, options
from posbench.core.errors import Interrupted, UsageError, nearest
from posbench.core.files import check_destinations, user_path, write_atomically
from posbench.plugin.components import Backbone, Component, Images
from posbench.plugin.registry import KINDS, load_registry, plural
from posbench.report.rows import to_csv
from posbench.runner import session
from posbench.runner.observers import RunListener
from posbench.runner.results import Results

#: The options that `run` takes as keywords.
_OPTIONS = {name: (kind, option) for name, kind, option in options() if not option.output_only}
#: The type of the records that a keyword takes.
_RECORDS = {name: record for kind, record in KINDS.items() if (name := plural(kind)) in _OPTIONS}
_RECORDS["test_images"] = Images
#: The function that makes a record from an object of the user.
_WRAPPERS: dict[type[Component], str] = {
    Backbone: "posbench.backbone(module, taps=[…])",
    Images: "posbench.images(tensor_or_dataset)",
}


def run(config: str | Path | None = None, *, progress: bool = False, **chosen: Any) -> Results:
    """Probe every combination of the components named, as the command `posbench run` does.

    Nothing is printed unless `progress` is set. An option that is left out or None has the default in brackets, except
    for `store`: without one, here or in the file of options, results are kept in a temporary file, which is deleted
    with them. Options that name components also take records, such as those from `posbench.backbone` and
    `posbench.images`, or a list of names and records.

    Raises:
        UsageError, ComponentError, MissingError: before anything is computed, where the command would end with an
            error. A job that fails is part of the results, and raises nothing.
        Interrupted: if the user stops it.

    Args:
        config: a YAML file with the options as keys.
        progress: show a bar, warnings and failures on standard error; otherwise, they are only in the results.
    """
    for name in sorted(chosen.keys() - _OPTIONS):
        raise TypeError(f"run() got an unexpected keyword argument {name!r}{nearest(name, _OPTIONS)}")
    registry = load_registry()
    for name, value in chosen.items():
        if name in _RECORDS:
            chosen[name] = _names(value, _RECORDS[name], name, registry.add)
        elif isinstance(value, Iterable) and not isinstance(value, str):
            chosen[name] = list(value)
    folder = _Folder()
    file = None if config is None else user_path(str(config))
    run_config = load_config(file, chosen, defaults={"store": folder.store})
    if run_config.csv == "-":
        raise UsageError("csv='-' is for the command line: name a file, or take the rows from the results")
    check_destinations(run_config.store, {"--csv": run_config.csv})
    listener: RunListener = _display() if progress else RunListener()
    left_out = tuple(
        f"plugin {plugin.label} is left out ({plugin.error})" for plugin in registry.plugins if plugin.error
    )
    for warning in left_out:
        listener.warning(warning)
    try:
        results = session.run(run_config, registry, listener)
    except Interrupted as stopped:
        if run_config.store != folder.store:
            raise
        raise Interrupted("interrupted; nothing is kept of a run without a store: name one to go on from") from stopped
    if run_config.csv is not None and not run_config.dry_run:
        write_atomically(Path(run_config.csv), to_csv(results.rows))
    return replace(results, warnings=(*left_out, *results.warnings), _keep_alive=folder)


def _signature() -> inspect.Signature:
    """Return the signature of `run` with one keyword for each option."""
    config, progress, _ = inspect.signature(run, eval_str=True).parameters.values()
    keywords = []
    for name, (kind, _) in _OPTIONS.items():
        accepted: Any = _RECORDS.get(name, kind)
        if name in _RECORDS:
            accepted = str | accepted | GenericAlias(Sequence, str | accepted)
        keywords.append(inspect.Parameter(name, progress.kind, default=None, annotation=accepted | None))
    return inspect.Signature([config, *keywords, progress], return_annotation=Results)


run.__signature__ = _signature()  # type: ignore[attr-defined]
run.__doc__ = (run.__doc__ or "").rstrip() + "".join(
    f"\n        {name}: {option.help}" for name, (_, option) in _OPTIONS.items()
)


class _Folder:
    """A temporary folder, deleted when this object is."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="posbench-"))
        self.store = folder / "posbench.db"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


def _names(given: Any, record: type[Component], keyword: str, add: Callable[[Component], None]) -> Any:
    """Return the names of components that a keyword was given, and add its records to the registry.

    Raises:
        UsageError: if an item is neither a name nor such a record.
    """
    if given is None or isinstance(given, str):
        return given
    names = []
    for item in [given] if isinstance(given, Component | Path) or not isinstance(given, Iterable) else given:
        if isinstance(item, record):
            add(item)
            names.append(item.name)
        elif isinstance(item, str | Path) and (record is Images or isinstance(item, str)):
            names.append(str(item))
        else:
            hint = f": wrap it by {_WRAPPERS[record]}" if record in _WRAPPERS else ""
            raise UsageError(
                f"{keyword}: expected names or {record.__name__} records, not a {type(item).__name__}{hint}"
            )
    return names


def _display() -> RunListener:
    """Return a listener that shows progress on standard error."""
    from rich.console import Console

    from posbench.runner.progress import Display

    console = Console(stderr=True)

    def say(message: str, style: str) -> None:
        console.print(message, style=style, markup=False, highlight=False, soft_wrap=True)

    return Display(console, say)
