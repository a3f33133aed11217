"""The checks for authors: what posbench offers passes them, and what is broken is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from posbench.core.version import DISTRIBUTION
from posbench.plugin.components import Backbone, Checkpoint, Images, Metric, Readout, Target
from posbench.plugin.observation import Reading
from posbench.plugin.registry import load_registry
from posbench.testing import check_backbone, check_images, check_metric, check_readout, check_target
from tests.hook_examples import example

REGISTRY = load_registry()


def of_kind(kind: str) -> list[Any]:
    """The built-in components of a kind."""
    return [one.component for one in REGISTRY.entries(kind) if one.plugin.distribution == DISTRIBUTION]


@pytest.mark.parametrize("target", of_kind("target"), ids=lambda one: one.name)
def test_every_target_passes(target: Target) -> None:
    check_target(target)


@pytest.mark.parametrize("images", of_kind("images"), ids=lambda one: one.name)
def test_every_source_of_images_passes(images: Images) -> None:
    check_images(images)


@pytest.mark.parametrize("metric", of_kind("metric"), ids=lambda one: one.name)
def test_every_metric_passes(metric: Metric) -> None:
    check_metric(metric)


@pytest.mark.parametrize("name", ["ridge", "ridge-cv", "ridge-k1", "ridge-pad1", "sgd", "sgd-depth2"])
def test_readouts_pass(name: str) -> None:
    check_readout(REGISTRY.get(Readout, name))


@pytest.mark.parametrize("name", ["none", "tf_efficientnet_lite0", "resnet18"])
def test_backbones_pass(name: str) -> None:
    check_backbone(REGISTRY.get(Backbone, name))


@pytest.mark.parametrize("kind", ["backbone", "metric", "images", "target", "readout"])
def test_the_examples_of_the_hooks_pass(kind: str) -> None:
    hook = f"posbench_{kind}" if kind == "images" else f"posbench_{kind}s"
    names: dict[str, Any] = {}
    exec(example(hook), names)  # noqa: S102  it is ours
    check = {
        "backbone": check_backbone,
        "metric": check_metric,
        "images": check_images,
        "target": check_target,
        "readout": check_readout,
    }[kind]
    for record in names[hook]():
        check(record)


class Net(nn.Module):
    """A backbone's module that does what it is told."""

    def __init__(self, forward: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def backbone(forward: Callable[[torch.Tensor], Any], **more: Any) -> Backbone:
    return Backbone(**{"name": "net", "summary": "", "version": "1", "taps": 1, "build": lambda: Net(forward)} | more)


def unseeded() -> nn.Module:
    generator = torch.Generator()
    generator.seed()
    layer = nn.Conv2d(3, 2, 3)
    layer.weight.data = torch.randn(2, 3, 3, 3, generator=generator)
    return layer


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (backbone(lambda x: x), "returned a Tensor, not a list"),
        (backbone(lambda x: [x, x]), "returned 2 taps, where the record says 1"),
        (backbone(lambda x: [x.mean(1)]), "tap 1: it is no map"),
        (backbone(lambda x: [x[:1]]), "tap 1: it holds 1 images of 2"),
        (backbone(lambda x: [x.int()]), "tap 1: it is torch.int32"),
        (backbone(lambda x: [x / 0]), "tap 1: some values are not finite"),
        (backbone(lambda x: [x.add_(1)]), "the same images gave another map|the images were changed"),
        (backbone(lambda x: [x + torch.rand(1)]), "the random state of torch was disturbed"),
        (backbone(lambda x: [x - x[-1:]]), "depends on the others of the batch"),
        (backbone(lambda x: [x], build=lambda: 3), "build returned a int, no nn.Module"),
        (backbone(lambda x: [x], build=unseeded), "built again from the same random state, it is another"),
        (
            backbone(lambda x: [x], checkpoints=[Checkpoint(label="gone", find=lambda: Path("gone.pt"))]),
            "checkpoint gone finds gone.pt, which is no file",
        ),
    ],
)
def test_a_backbone_that_breaks_its_contract(record: Backbone, problem: str) -> None:
    with pytest.raises(AssertionError, match=f"^net.*{problem}"):
        check_backbone(record)


def source(draw: Callable[..., Any]) -> Images:
    return Images(name="static", summary="", version="1", draw=draw)


@pytest.mark.parametrize(
    ("draw", "problem"),
    [
        (lambda rng, size: np.zeros((size, size), np.uint8), r"it draws \(32, 32\), not"),
        (lambda rng, size: np.zeros((size, size, 3)), "it draws float64, not uint8"),
        (lambda rng, size: [[0]], "it draws a list, no array"),
        (
            lambda rng, size: np.random.default_rng().integers(0, 256, (size, size, 3), np.uint8),
            "the same generator gave another image",
        ),
        (
            lambda rng, size: np.full((size, size, 3), random.randrange(256), np.uint8),  # noqa: S311
            "the random state of Python was disturbed",
        ),
    ],
)
def test_a_source_that_breaks_its_contract(draw: Callable[..., Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=f"^static, size 32: {problem}"):
        check_images(source(draw))


def test_photographs_must_be_there_and_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    for files, problem in (([], "it has no photograph"), ([tmp_path / "a.png"], "1 of the 1 images of album cannot")):
        record = Images(name="album", summary="", version="1", photographs=lambda files=files: files)
        with pytest.raises(AssertionError, match=problem):
            check_images(record)


@pytest.mark.parametrize(
    ("draw", "problem"),
    [
        (lambda size: np.zeros(size), r"it draws \(256,\), not"),
        (lambda size: np.eye(size) * 1j, "it draws complex128"),
        (lambda size: np.full((size, size), np.nan), "not finite"),
        (lambda size: np.ones((size, size)), "it is constant"),
        (lambda size: np.random.rand(size, size), "the random state of NumPy was disturbed"),  # noqa: NPY002
    ],
)
def test_a_target_that_breaks_its_contract(draw: Callable[..., Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=f"^odd: .*{problem}"):
        check_target(Target(name="odd", summary="", version="1", draw=draw))


def error(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (predictions - target).abs().mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (error, "see higher_is_better"),
        (lambda p, t: error(p, t).mean(), "one score an image"),
        (lambda p, t: -error(p, t) / p.std(dim=(1, 2)), "not finite"),
        (lambda p, t: -error(p.sub_(1), t), "were changed|other scores"),
        (lambda p, t: -error(p, t) / error(p, t).max(), "not finite|depends on the others"),
    ],
)
def test_a_metric_that_breaks_its_contract(score: Callable[..., Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_metric(Metric(name="odd", summary="", version="1", score=score))
    check_metric(Metric(name="error", summary="", version="1", score=error, higher_is_better=False))


@pytest.mark.parametrize(
    ("of_job", "problem"),
    [
        (lambda seen: [], "it returned no reading"),
        (lambda seen: [3.0], "it returned a float, no Reading"),
        (lambda seen: [Reading({})], "neither a value nor one a photograph"),
        (lambda seen: [Reading({}, value=float("nan"))], "not finite"),
        (lambda seen: [Reading({"elsewhere": 1.0})], "of a photograph that was not given"),
        (lambda seen: [Reading({}, value=float(seen.test.taps[0].zero_().sum()))], "the features were changed"),
    ],
)
def test_a_metric_of_a_job_that_breaks_its_contract(of_job: Callable[..., Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=f"^odd: .*{problem}"):
        check_metric(Metric(name="odd", summary="", version="1", of_job=of_job))


class Drawing:
    def __init__(self, predict: Callable[..., Any]) -> None:
        self.predict = predict


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda training, features: torch.zeros(12, 3, 5, 5), r"it must draw \[12, 3, 12, 12\]"),
        (lambda training, features: torch.zeros(12, 3, 12, 12).double(), "it draws torch.float64"),
        (lambda training, features: torch.zeros(12, 3, 12, 12) / 0, "not finite"),
        (lambda training, features: torch.rand(12, 3, 12, 12), "the random state of torch was disturbed"),
        (lambda training, features: features.taps[0].add_(1) * 0 + 1, "must draw|were changed"),
        (
            lambda training, features: (
                training.targets(12).mean().float().expand(len(features), len(training.patterns), 12, 12)
            ),
            "depends on the other targets",
        ),
    ],
)
def test_a_readout_that_breaks_its_contract(make: Callable[..., Any], problem: str) -> None:
    record = Readout(
        name="odd",
        summary="",
        version="1",
        fit=lambda training: Drawing(lambda features: make(training, features)),
        grid=lambda side: side,
    )
    with pytest.raises(AssertionError, match=problem):
        check_readout(record)
    with pytest.raises(AssertionError, match="it must draw"):
        check_readout(replace(REGISTRY.get(Readout, "ridge"), grid=lambda side: side))
