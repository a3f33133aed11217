"""Looks up the names in a configuration: components, weights, images, controls, device and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from posbench.bench.config import LOCAL, RunConfig
from posbench.bench.controls import ControlInputs, checks_of, select_controls, with_controls
from posbench.bench.plan import Plan, PlanInputs, Source, grid_side, make_plan
from posbench.bench.taps import parse_taps
from posbench.bench.verdict import METRIC as VERDICT_METRIC
from posbench.core.device import resolve_device, resolve_precision
from posbench.core.errors import ComponentError, UsageError
from posbench.core.files import content_digest, content_hash, user_path
from posbench.data.folder import folder_images
from posbench.network.weights import Request, Weights, resolve
from posbench.plugin.components import Backbone, Component, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Control
from posbench.plugin.registry import Registry
from posbench.plugin.sandbox import call_in_subprocess, naming_errors

#: The backbones of a run that names none: a network whose trained weights ship in a package, and the control.
BARE_RUN = ("tf_efficientnet_lite0", "none")

T = TypeVar("T")
C = TypeVar("C", bound=Component)
#: A backbone, its weights and, where `auto` fell back on random ones, why.
_Network: TypeAlias = tuple[Backbone, list[Weights], str | None]


@dataclass(frozen=True)
class ResolvedRun:
    """The components and settings of a run.

    Attributes:
        config: the configuration, without what is left out.
        left_out: why components are left out, one reason for each that a plugin's fault keeps from being planned.
        device: where networks run.
        warnings: to show before the run.
        control_inputs: what the controls of the plan's cells need beside the plan.
    """

    config: RunConfig
    left_out: tuple[str, ...]
    plan_inputs: PlanInputs
    device: str
    warnings: tuple[str, ...]
    controls: tuple[Control, ...]
    control_inputs: ControlInputs

    def plan(self) -> Plan:
        """Return the plan with the checks of its controls. Raises as `make_plan` does."""
        return with_controls(make_plan(self.plan_inputs), self.controls, self.control_inputs)


def resolve_config(config: RunConfig, registry: Registry, *, download: bool) -> ResolvedRun:
    """Look up every name of a configuration, and `download` trained weights that the hub offers or only name them.

    Components that a plugin's fault keeps from being planned are left out, unless nothing of their kind remains.

    Raises:
        UsageError: for an unknown name, or an option that does not fit.
        MissingError: for weights, packages or a device that are not there.
        ComponentError: if a plugin's fault leaves no backbone, readout, control or source of images.
    """
    controls = select_controls(config.controls, registry)
    registry.time_limit = config.time_limit
    search = _Search(config, registry)
    networks = search.networks(download=download)
    device = _device(config)
    train, readouts = search.sources(config.images), search.readouts()
    test = None if config.test_images is None else search.sources(config.test_images)
    sources = [(a, b) for a in train.values() for b in ([a] if test is None else test.values())]
    plan_inputs = PlanInputs(
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
    )
    control_inputs = _control_inputs(plan_inputs, registry, any_controls=bool(controls))
    working = search.controls(controls, plan_inputs, control_inputs)
    left_out, warnings = tuple(dict.fromkeys(search.left_out)), tuple(_warnings(config, networks))
    if left_out:
        config = replace(
            config,
            backbones=tuple(networks),
            weights=tuple(w for w in config.weights if "=" not in w or w.partition("=")[0] in networks),
            images=tuple(train),
            test_images=None if test is None else tuple(test),
            readouts=tuple(readouts),
            controls=tuple(working),
        )
    return ResolvedRun(config, left_out, plan_inputs, device, warnings, tuple(working.values()), control_inputs)


def _control_inputs(inputs: PlanInputs, registry: Registry, *, any_controls: bool) -> ControlInputs:
    null_images = _first(registry, Images, lambda images: images.reference == "null")
    # Photographs come from packages that may be missing: they are looked up only if cells on null images need them.
    photographs = None
    if any_controls and any(train.images.reference == "null" for train, _ in inputs.sources):
        photographs = _source(_first(registry, Images, lambda images: images.reference == "photographs"))
    none = _first(registry, Backbone, lambda backbone: backbone.weightless)
    return ControlInputs(none, _source(null_images), photographs, inputs.seeds)


def _first(registry: Registry, record: type[C], fits: Callable[[C], bool]) -> C:
    """Return the first component of a kind that fits; built-in ones come first."""
    for entry in registry.entries(record.kind):
        if isinstance(entry.component, record) and fits(entry.component):
            return registry.get(record, entry.component.name)
    raise UsageError(f"no installed {record.kind} can serve as a reference of controls: install posbench again")


def _warnings(config: RunConfig, networks: Mapping[str, _Network]) -> Iterator[str]:
    untrained: dict[str, list[str]] = {}
    for backbone, _, problem in networks.values():
        if problem:
            untrained.setdefault(problem, []).append(backbone.name)
    seeds = ", ".join(map(str, config.seeds))
    for problem, names in untrained.items():
        yield f"no trained weights for {', '.join(names)} ({problem}): probing untrained networks, seed {seeds}"
    if config.controls and VERDICT_METRIC not in config.metrics:
        yield f"without the metric {VERDICT_METRIC} there is no verdict: add it to --metrics"


def _device(config: RunConfig) -> str:
    """Return the device of networks: this machine's, or the one that a cluster gives to jobs."""
    if config.executor == LOCAL:
        return resolve_device(config.device)
    device = "cuda" if config.gpus_per_job else "cpu"
    if config.device not in ("auto", device):
        hint = "leave out --gpus-per-job" if config.gpus_per_job else "add --gpus-per-job 1"
        raise UsageError(f"--device {config.device} is not what jobs are given of a cluster: {hint}")
    return device


@dataclass(frozen=True)
class _Search:
    """Looks up components that run plugin code before there is a plan, and collects the faults of those left out."""

    config: RunConfig
    registry: Registry
    left_out: list[str] = field(default_factory=list)

    def networks(self, *, download: bool) -> dict[str, _Network]:
        seeds, limit = self.config.seeds, self.config.time_limit
        request, names = Request.parse(self.config.weights), self.config.backbones or BARE_RUN
        if stray := sorted(request.files.keys() - set(names)):
            raise UsageError(f"--weights names {stray[0]!r}, which is not among the backbones: add it or leave it out")

        def look_up(name: str) -> _Network:
            backbone = self.registry.get(Backbone, name)
            return (backbone, *resolve(backbone, request, seeds, download=download, limit=limit))

        return self._working(names, look_up)

    def sources(self, names: Iterable[str]) -> dict[str, Source]:
        return self._working(names, lambda name: _source(find_images(self.registry, name), self.config.time_limit))

    def readouts(self) -> dict[str, Readout]:
        """Look up readouts and check that they return the side of their maps."""

        def look_up(name: str) -> Readout:
            readout = self.registry.get(Readout, name)

            def check() -> None:
                with naming_errors(readout):
                    if not isinstance(side := readout.grid(grid_side(self.config.image_size)), int):
                        raise TypeError(f"grid returned {side!r}, which is no side of a map")

            call_in_subprocess(readout, check, self.config.time_limit)
            return readout

        return self._working(self.config.readouts, look_up)

    def controls(self, controls: Iterable[Control], plan: PlanInputs, inputs: ControlInputs) -> dict[str, Control]:
        """Return the controls by name; those of plugins are first tried on the cells of the plan."""
        by_name = {control.name: control for control in controls}
        cells = make_plan(plan).cells if any(control.foreign for control in by_name.values()) else ()

        def look_up(name: str) -> Control:
            control = by_name[name]

            def check() -> None:
                for cell in cells:
                    if not cell.job.backbone.weightless:
                        checks_of(cell, [control], inputs)

            if control.foreign:
                call_in_subprocess(control, check, self.config.time_limit)
            return control

        return self._working(by_name, look_up)

    def _working(self, names: Iterable[str], look_up: Callable[[str], T]) -> dict[str, T]:
        components: dict[str, T] = {}
        faults: list[ComponentError] = []
        for name in names:
            try:
                components[name] = look_up(name)
            except ComponentError as fault:
                faults.append(fault)
        if faults and not components:
            raise faults[0]
        self.left_out.extend(map(str, faults))
        return components


def find_images(registry: Registry, name: str) -> Images:
    """Return a source of images by its name, or a folder by its path.

    Raises:
        UsageError: if the name is neither, or the folder has no image.
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
    def contents() -> tuple[str, int]:
        with naming_errors(images):
            files = list(images.photographs()) if images.photographs else []
            if images.foreign and not files:
                raise ValueError("it has no photographs")
            return content_digest(files), len({content_hash(file) for file in files})

    return Source(images, *call_in_subprocess(images, contents, limit)) if images.photographs else Source(images)
