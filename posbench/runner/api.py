"""`posbench.run`: what the command line does, for Python and notebooks."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from posbench.bench.config import load_config
from posbench.core.errors import Interrupted, UsageError
from posbench.core.files import check_destinations, user_path, write_whole
from posbench.plugin.components import Backbone, Component, Images, Metric, Padding, Readout, Target
from posbench.plugin.registry import KINDS, load_registry, plural
from posbench.report import rows as leaderboard
from posbench.runner import session as running
from posbench.runner.observers import RunListener
from posbench.runner.results import Results

C = TypeVar("C", bound=Component)
#: Names separated by commas, or one record, or names and records mixed.
Chosen: TypeAlias = str | C | Sequence[str | C]

#: The keyword of each kind of component; images are also those that are tested on.
_KEYWORDS = {plural(kind): record for kind, record in KINDS.items()} | {"test_images": Images}
#: What makes a record of something of the user's own.
_WRAPPED: dict[type[Component], str] = {
    Backbone: "posbench.backbone(module, taps=[…])",
    Images: "posbench.images(tensor_or_dataset)",
}


def run(
    config: str | Path | None = None,
    *,
    backbones: Chosen[Backbone] | None = None,
    paddings: Chosen[Padding] | None = None,
    targets: Chosen[Target] | None = None,
    images: Chosen[Images] | Path | Sequence[str | Images | Path] | None = None,
    test_images: Chosen[Images] | Path | Sequence[str | Images | Path] | None = None,
    readouts: Chosen[Readout] | None = None,
    metrics: Chosen[Metric] | None = None,
    controls: str | Sequence[str] | None = None,
    weights: str | Sequence[str] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    taps: str | int | Sequence[int] | None = None,
    image_size: int | None = None,
    train_count: int | None = None,
    test_count: int | None = None,
    score_at: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    store: str | Path | None = None,
    published: str | None = None,
    experiment: str | None = None,
    shard: str | None = None,
    executor: str | None = None,
    jobs: int | None = None,
    time_limit: int | None = None,
    cpus_per_job: int | None = None,
    gpus_per_job: float | None = None,
    ray_address: str | None = None,
    csv: str | Path | None = None,
    dry_run: bool | None = None,
    force: bool | None = None,
    fail_fast: bool | None = None,
    progress: bool = False,
) -> Results:
    """Probe every combination of the components named, as `posbench run` does, whose options these are.

    What is left out has the command's default, but for the store. Nothing is printed, unless progress is asked for.

    Args:
        config: a YAML file with the options as keys.
        backbones, paddings, targets, images, test_images, readouts, metrics: names, as the command line takes them, or
            records, such as those that `posbench.backbone` and `posbench.images` make, or both in one list.
        store: the SQLite file for results. Without one, here or in the file of options, a temporary one is made, which
            goes with the results.
        csv: a file to write the rows to.
        dry_run: compute nothing; `Results.jobs()` tells what would be.
        progress: show a bar, warnings and failures on standard error; otherwise, they are in the results.

    Raises:
        UsageError, ComponentError, MissingError: for what the command line would end with, before anything is computed.
            A job that fails is in the results, and raises nothing.
        Interrupted: if the user stops it.
    """
    options = {name: value for name, value in locals().items() if name not in ("config", "progress")}
    registry = load_registry()
    for name, record in _KEYWORDS.items():
        if name in options:
            options[name] = _named(options[name], record, name, registry.add)
    for name in ("seeds", "controls", "weights"):
        if isinstance(options[name], Iterable) and not isinstance(options[name], str):
            options[name] = list(options[name])
    keeps = _Folder()
    file = None if config is None else user_path(str(config))
    run_config = load_config(file, options, defaults={"store": keeps.store})
    if run_config.csv == "-":
        raise UsageError("csv='-' is for the command line: name a file, or take the rows from the results")
    check_destinations(run_config.store, {"--csv": run_config.csv})
    audience: RunListener = _shown() if progress else RunListener()
    left_out = tuple(
        f"plugin {plugin.label} is left out ({plugin.error})" for plugin in registry.plugins if plugin.error
    )
    for warning in left_out:
        audience.warning(warning)
    try:
        results = running.run(run_config, registry, audience)
    except Interrupted as stopped:
        if run_config.store != keeps.store:
            raise
        raise Interrupted("interrupted; nothing is kept of a run without a store: name one to go on from") from stopped
    if run_config.csv is not None and not run_config.dry_run:
        write_whole(Path(run_config.csv), leaderboard.to_csv(results.rows))
    return replace(results, warnings=(*left_out, *results.warnings), _keep_alive=keeps)


class _Folder:
    """A temporary folder, which goes when nobody has this any more."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="posbench-"))
        self.store = folder / "posbench.db"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


def _named(given: Any, record: type[Component], keyword: str, give: Callable[[Component], None]) -> Any:
    """The names of what was given for a keyword, of records too, which the registry is given."""
    if given is None or isinstance(given, str):
        return given
    names = []
    for one in [given] if isinstance(given, Component | Path) or not isinstance(given, Iterable) else given:
        if isinstance(one, record):
            give(one)
            names.append(one.name)
        elif isinstance(one, str | Path) and (record is Images or isinstance(one, str)):
            names.append(str(one))
        else:
            hint = f": wrap it by {_WRAPPED[record]}" if record in _WRAPPED else ""
            raise UsageError(
                f"{keyword}: expected names or {record.__name__} records, not a {type(one).__name__}{hint}"
            )
    return names


def _shown() -> RunListener:
    """Who shows on standard error how a run goes on."""
    from rich.console import Console

    from posbench.runner.progress import Display

    console = Console(stderr=True)

    def say(message: str, style: str) -> None:
        console.print(message, style=style, markup=False, highlight=False, soft_wrap=True)

    return Display(console, say)
