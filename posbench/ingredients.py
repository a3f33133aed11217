"""Looks up what a selection names: components, weights, images, device and precision."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.controls import Control, Surroundings, chosen, with_controls
from posbench.errors import UsageError
from posbench.folders import content_digest, content_hash
from posbench.guests import told
from posbench.machine import resolve_device, resolve_precision
from posbench.plan import Ingredients, Plan, Source, make_plan, parse_taps
from posbench.registry import Registry
from posbench.selection import LOCAL, Selection
from posbench.verdict import METRIC as VERDICT_METRIC
from posbench.weights import Request, Weights, resolve

#: What a bare run probes: a network whose trained weights ship in a package, and the control.
BARE_RUN = ("tf_efficientnet_lite0", "none")

#: Images whose only cue to position is a border: what a verdict rests on.
LEAVES = "leaves"


@dataclass(frozen=True)
class Gathered:
    """What a plan is made of, where it will run, and what the user should be told first."""

    ingredients: Ingredients
    device: str
    warnings: tuple[str, ...]
    controls: tuple[Control, ...]
    surroundings: Surroundings

    def plan(self) -> Plan:
        """The plan, with the controls that were asked for. Raises as `make_plan` does."""
        return with_controls(make_plan(self.ingredients), self.controls, self.surroundings)


def gather(selection: Selection, registry: Registry, *, download: bool) -> Gathered:
    """Look everything up; the first thing that is not there is an error before anything runs.

    Args:
        download: fetch trained weights that the hub offers, rather than only naming them.

    Raises:
        UsageError: for a name that nothing has, or an option that does not fit.
        MissingError: for weights, packages or a device that are not here.
    """
    checks = chosen(selection.controls)
    backbones = registry.select(Backbone, selection.backbones or BARE_RUN)
    request = Request.parse(selection.weights)
    if stray := request.files.keys() - {backbone.name for backbone in backbones}:
        raise UsageError(
            f"--weights names {sorted(stray)[0]!r}, which is not among the backbones: add it or leave it out"
        )
    networks: list[tuple[Backbone, list[Weights]]] = []
    untrained: dict[str, list[str]] = {}
    for backbone in backbones:
        weights, problem = resolve(backbone, request, selection.seeds, download=download)
        networks.append((backbone, weights))
        if problem:
            untrained.setdefault(problem, []).append(backbone.name)
    device = _device(selection)
    sources = _sources(selection, registry)
    # Photographs come from packages that may be missing: they are asked for only where leaves need them beside them.
    needs_photos = any(train.images.name == LEAVES for train, _ in sources) and bool(checks)
    seeds = ", ".join(map(str, selection.seeds))
    warnings = [
        f"no trained weights for {', '.join(names)} ({problem}): probing untrained networks, seed {seeds}"
        for problem, names in untrained.items()
    ]
    if checks and VERDICT_METRIC not in selection.metrics:
        warnings.append(f"without the metric {VERDICT_METRIC} there is no verdict: add it to --metrics")
    return Gathered(
        Ingredients(
            networks=networks,
            paddings=registry.select(Padding, selection.paddings),
            targets=registry.select(Target, selection.targets),
            readouts=registry.select(Readout, selection.readouts),
            metrics=registry.select(Metric, selection.metrics),
            sources=sources,
            seeds=selection.seeds,
            taps=parse_taps(selection.taps),
            score_at=selection.score_at,
            n_train=selection.train_count,
            n_test=selection.test_count,
            image_size=selection.image_size,
            precision=resolve_precision(selection.precision, device),
        ),
        device,
        tuple(warnings),
        tuple(checks),
        Surroundings(
            none=registry.get(Backbone, "none"),
            leaves=_source(registry.images(LEAVES)),
            photos=_source(registry.images("photos")) if needs_photos else None,
            seeds=selection.seeds,
        ),
    )


def _device(selection: Selection) -> str:
    """Where networks run: on this machine's device, or on what jobs are given of a cluster, which may have others.

    Raises:
        UsageError, MissingError: as `resolve_device` does, or if there is to be none of those that are asked for.
    """
    if selection.executor == LOCAL:
        return resolve_device(selection.device)
    given = "cuda" if selection.gpus_per_job else "cpu"
    if selection.device not in ("auto", given):
        hint = "leave out --gpus-per-job" if selection.gpus_per_job else "add --gpus-per-job 1"
        raise UsageError(f"--device {selection.device} is not what jobs are given of a cluster: {hint}")
    return given


def _sources(selection: Selection, registry: Registry) -> list[tuple[Source, Source]]:
    """The pairs of training and test sources."""
    train = [_source(registry.images(name)) for name in selection.images]
    if selection.test_images is None:
        return [(source, source) for source in train]
    test = [_source(registry.images(name)) for name in selection.test_images]
    return [(a, b) for a in train for b in test]


def _source(images: Images) -> Source:
    if images.photographs is None:
        return Source(images)
    with told(images):
        files = list(images.photographs())
    return Source(images, content_digest(files), len({content_hash(file) for file in files}))
