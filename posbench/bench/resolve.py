"""Looks up what a selection names: components, weights, images, device and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias, TypeVar

from posbench.bench.config import LOCAL, RunConfig
from posbench.bench.controls import Control, ControlContext, chosen, with_controls
from posbench.bench.plan import Plan, PlanInputs, Source, grid_side, make_plan, parse_taps
from posbench.bench.verdict import METRIC as VERDICT_METRIC
from posbench.core.device import resolve_device, resolve_precision
from posbench.core.errors import ComponentError, UsageError
from posbench.core.files import content_digest, content_hash, user_path
from posbench.data.folder import folder_images
from posbench.network.weights import Request, Weights, resolve
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.plugin.registry import Registry
from posbench.plugin.sandbox import call_in_subprocess, naming_errors

#: What a bare run probes: a network whose trained weights ship in a package, and the control.
BARE_RUN = ("tf_efficientnet_lite0", "none")

T = TypeVar("T")
#: A backbone, its weights and, where `auto` fell back on random ones, why.
_Network: TypeAlias = tuple[Backbone, list[Weights], str | None]

#: Images whose only cue to position is a border: what a verdict rests on.
LEAVES = "leaves"


@dataclass(frozen=True)
class ResolvedRun:
    """What a plan is made of, where it will run, and what the user should be told first.

    Attributes:
        selection: what was asked for, without what is left out.
        left_out: why each component is left out that a plugin's fault keeps from being planned.
    """

    config: RunConfig
    left_out: tuple[str, ...]
    plan_inputs: PlanInputs
    device: str
    warnings: tuple[str, ...]
    controls: tuple[Control, ...]
    surroundings: ControlContext

    def plan(self) -> Plan:
        """The plan, with the controls that were asked for. Raises as `make_plan` does."""
        return with_controls(make_plan(self.plan_inputs), self.controls, self.surroundings)


def resolve_config(config: RunConfig, registry: Registry, *, download: bool) -> ResolvedRun:
    """Look everything up; the first thing that is not there is an error before anything runs.

    What a plugin's fault keeps from being planned is left out, as long as something else is there in its place.

    Args:
        download: fetch trained weights that the hub offers, rather than only naming them.

    Raises:
        UsageError: for a name that nothing has, or an option that does not fit.
        MissingError: for weights, packages or a device that are not here.
        ComponentError: if a plugin's fault leaves no backbone, readout or source of images.
    """
    checks = chosen(config.controls)
    request = Request.parse(config.weights)
    asked = config.backbones or BARE_RUN
    if stray := request.files.keys() - set(asked):
        raise UsageError(
            f"--weights names {sorted(stray)[0]!r}, which is not among the backbones: add it or leave it out"
        )
    registry.time_limit = config.time_limit
    search = _Search(config, registry)
    networks = search.networks(asked, request, download=download)
    device = _device(config)
    train, readouts = search.sources(config.images), search.readouts()
    test = None if config.test_images is None else search.sources(config.test_images)
    sources = [(a, b) for a in train.values() for b in ([a] if test is None else test.values())]
    if search.left_out:
        config = replace(
            config,
            backbones=tuple(networks),
            weights=tuple(one for one in config.weights if "=" not in one or one.partition("=")[0] in networks),
            images=tuple(train),
            test_images=None if test is None else tuple(test),
            readouts=tuple(readouts),
        )
    # Photographs come from packages that may be missing: they are asked for only where leaves need them beside them.
    needs_photos = any(train.images.name == LEAVES for train, _ in sources) and bool(checks)
    return ResolvedRun(
        config,
        tuple(dict.fromkeys(search.left_out)),
        PlanInputs(
            networks=[(backbone, weights) for backbone, weights, _ in networks.values()],
            paddings=registry.select(Padding, config.paddings),
            targets=registry.select(Target, config.targets),
            readouts=list(readouts.values()),
            metrics=registry.select(Metric, config.metrics),
            sources=sources,
            seeds=config.seeds,
            taps=parse_taps(config.taps),
            score_at=config.score_at,
            n_train=config.train_count,
            n_test=config.test_count,
            image_size=config.image_size,
            precision=resolve_precision(config.precision, device),
        ),
        device,
        tuple(_warnings(config, networks, verdict=bool(checks))),
        tuple(checks),
        ControlContext(
            none=registry.get(Backbone, "none"),
            leaves=_source(registry.get(Images, LEAVES)),
            photos=_source(registry.get(Images, "photos")) if needs_photos else None,
            seeds=config.seeds,
        ),
    )


def _warnings(config: RunConfig, networks: Mapping[str, _Network], *, verdict: bool) -> Iterator[str]:
    """What the user should know of networks without trained weights, and of a verdict that there will not be."""
    untrained: dict[str, list[str]] = {}
    for backbone, _, problem in networks.values():
        if problem:
            untrained.setdefault(problem, []).append(backbone.name)
    seeds = ", ".join(map(str, config.seeds))
    for problem, names in untrained.items():
        yield f"no trained weights for {', '.join(names)} ({problem}): probing untrained networks, seed {seeds}"
    if verdict and VERDICT_METRIC not in config.metrics:
        yield f"without the metric {VERDICT_METRIC} there is no verdict: add it to --metrics"


def _device(config: RunConfig) -> str:
    """Where networks run: on this machine's device, or on what jobs are given of a cluster, which may have others.

    Raises:
        UsageError, MissingError: as `resolve_device` does, or if there is to be none of those that are asked for.
    """
    if config.executor == LOCAL:
        return resolve_device(config.device)
    given = "cuda" if config.gpus_per_job else "cpu"
    if config.device not in ("auto", given):
        hint = "leave out --gpus-per-job" if config.gpus_per_job else "add --gpus-per-job 1"
        raise UsageError(f"--device {config.device} is not what jobs are given of a cluster: {hint}")
    return given


@dataclass(frozen=True)
class _Search:
    """Looks up what plugins are asked about, and notes what their faults leave out.

    Its methods raise ComponentError if that leaves nothing of a kind.
    """

    config: RunConfig
    registry: Registry
    left_out: list[str] = field(default_factory=list)

    def networks(self, names: Iterable[str], request: Request, *, download: bool) -> dict[str, _Network]:
        seeds, limit = self.config.seeds, self.config.time_limit

        def look_up(name: str) -> _Network:
            backbone = self.registry.get(Backbone, name)
            return (backbone, *resolve(backbone, request, seeds, download=download, limit=limit))

        return self._sound(names, look_up)

    def sources(self, names: Iterable[str]) -> dict[str, Source]:
        return self._sound(names, lambda name: _source(find_images(self.registry, name), self.config.time_limit))

    def readouts(self) -> dict[str, Readout]:
        """Those that can say which side their maps have."""

        def look_up(name: str) -> Readout:
            readout = self.registry.get(Readout, name)
            call_in_subprocess(readout, partial(_check_grid, readout, self.config.image_size), self.config.time_limit)
            return readout

        return self._sound(self.config.readouts, look_up)

    def _sound(self, names: Iterable[str], look_up: Callable[[str], T]) -> dict[str, T]:
        found: dict[str, T] = {}
        faults: list[ComponentError] = []
        for name in names:
            try:
                found[name] = look_up(name)
            except ComponentError as fault:
                faults.append(fault)
        if faults and not found:
            raise faults[0]
        self.left_out.extend(map(str, faults))
        return found


def find_images(registry: Registry, name: str) -> Images:
    """Return a source of images by its name, or a folder by its path.

    Raises:
        UsageError: if the name is neither, or the folder holds no image.
    """
    names = registry.names("images")
    if name in names:
        return registry.get(Images, name)
    path = user_path(name)
    if path.is_dir():
        return folder_images(path)
    if len(path.parts) > 1 or path.exists():
        state = "is a file, not a folder" if path.exists() else "does not exist"
        raise UsageError(f"image folder {name!r} {state}: give a folder of images or one of {', '.join(names)}")
    return registry.get(Images, name)


def _source(images: Images, limit: float | None = None) -> Source:
    if images.photographs is None:
        return Source(images)
    return Source(images, *call_in_subprocess(images, partial(_contents, images), limit))


def _contents(images: Images) -> tuple[str, int]:
    """The hash of a source's photographs, and how many different ones there are."""
    with naming_errors(images):
        files = list(images.photographs()) if images.photographs else []
        if images.foreign and not files:
            raise ValueError("it has no photographs")
        return content_digest(files), len({content_hash(file) for file in files})


def _check_grid(readout: Readout, image_size: int) -> None:
    with naming_errors(readout):
        if not isinstance(found := readout.grid(grid_side(image_size)), int):
            raise TypeError(f"grid returned {found!r}, which is no side of a map")
