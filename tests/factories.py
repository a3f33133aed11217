"""Small plans and outcomes of components that are never called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posbench.bench.plan import Cell, Plan, PlanInputs, Source, make_plan
from posbench.bench.records import Outcome, Score
from posbench.network.weights import NONE, Weights
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target

PHOTO_HASH = "ab" * 32
FILE_HASH = "cd" * 32


def never(*arguments: object) -> Any:
    """Fail: a component's function that planning and storing must not call."""
    raise AssertionError(f"called with {arguments}")


def backbone(name: str = "net", taps: int = 3, **fields: Any) -> Backbone:
    defaults: dict[str, Any] = {"name": name, "summary": "", "version": "1", "build": never, "taps": taps}
    return Backbone(**(defaults | fields))


def padding(name: str, version: str = "1") -> Padding:
    return Padding(name=name, summary="", version=version, pad=never)


def target(name: str, version: str = "1") -> Target:
    return Target(name=name, summary="", version=version, draw=never)


def metric(name: str, version: str = "1", *, higher_is_better: bool = True) -> Metric:
    return Metric(name=name, summary="", version=version, score=never, higher_is_better=higher_is_better)


def readout(
    name: str = "ridge", version: str = "1", *, stochastic: bool = False, grid: Callable[[int], int] = lambda side: side
) -> Readout:
    return Readout(name=name, summary="", version=version, fit=never, grid=grid, stochastic=stochastic)


def folder(name: str = "photos", digest: str = PHOTO_HASH, version: str = "1", photographs: int = 9) -> Source:
    images = Images(name=name, summary="", version=version, photographs=lambda: [Path("never-opened.png")])
    return Source(images, digest, photographs)


NET = backbone()
CONTROL = backbone("none", taps=1, weightless=True)
TRAINED = Weights("imagenet:net@1", FILE_HASH)
UNTRAINED = Weights("random:0", seed=0)


def plan_inputs(**changes: Any) -> PlanInputs:
    """Return inputs of one trained network, padding, target and source, with `changes` in place of any of them."""
    photos = folder()
    defaults: dict[str, Any] = {
        "networks": [(NET, [TRAINED])],
        "paddings": [padding("zero")],
        "targets": [target("H")],
        "readouts": [readout()],
        "metrics": [metric("spc")],
        "sources": [(photos, photos)],
        "seeds": [0],
        "taps": ["all"],
        "n_train": 8,
        "n_test": 4,
        "image_size": 64,
        "precision": "fp32",
    }
    return PlanInputs(**(defaults | changes))


def plan(**changes: Any) -> Plan:
    """Return the plan of `plan_inputs(**changes)`."""
    return make_plan(plan_inputs(**changes))


def control() -> tuple[Backbone, list[Weights]]:
    """Return the backbone `none` with its weights, as an entry of `networks`."""
    return CONTROL, [NONE]


def scored(cell: Cell, value: float = 0.5, half: float | None = 0.1, metric: str = "spc", **fields: Any) -> Outcome:
    """Return an outcome of `cell` with one score and, unless `half` is None, its interval value ± half."""
    lo, hi = (None, None) if half is None else (value - half, value + half)
    scores = [Score(metric, "1", value, lo, hi, {"a@1": value})]
    defaults: dict[str, Any] = {"identity": cell.identity(), "status": "ok", "n_test_photos": 3, "scores": scores}
    return Outcome(**(defaults | fields))
