"""The example of each hook in the guide, installed as a plugin and used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from posbench.plugin.components import Backbone, Executor, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Control
from posbench.plugin.features import Features
from posbench.plugin.observation import Observation
from posbench.plugin.registry import Registry, load_registry
from posbench.plugin.training import Training
from posbench.testing import check_control, check_executor
from tests.conftest import Ran
from tests.crops import train_test_crops
from tests.hook_examples import HOOKS, example


def backbones(registry: Registry) -> None:
    record = registry.get(Backbone, "two-taps")
    taps = record.build()(torch.rand(2, 3, 16, 16))
    assert [tuple(tap.shape) for tap in taps] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    assert len(taps) == record.taps


def find_backbone(registry: Registry) -> None:
    record = registry.get(Backbone, "plain-4")
    network = record.build()
    assert len(list(network.children())) == 4
    [tap] = network(torch.rand(2, 3, 8, 8))
    assert tap.shape == (2, 3, 8, 8)
    assert "plain-4" not in load_registry().names("backbone")


def paddings(registry: Registry) -> None:
    pad = registry.get(Padding, "edge").pad
    assert pad is not None
    row = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    assert pad(row, (2, 1, 0, 1)).tolist() == [[[[1, 1, 1, 2, 3, 3], [1, 1, 1, 2, 3, 3]]]]


def targets(registry: Registry) -> None:
    drawn = registry.get(Target, "diagonal").draw(3)
    assert drawn.tolist() == [[0, 0.25, 0.5], [0.25, 0.5, 0.75], [0.5, 0.75, 1]]


def metrics(registry: Registry) -> None:
    record = registry.get(Metric, "rmse")
    predictions = torch.tensor([[[0.0, 0.0], [0.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]], dtype=torch.float64)
    assert record.score(predictions, torch.zeros(2, 2, dtype=torch.float64)).tolist() == [1, 3]
    assert not record.higher_is_better
    of_job = registry.get(Metric, "dead").of_job
    assert of_job is not None
    taps = (torch.ones(3, 2, 2, 1), torch.tensor([[0.0, 1], [0, 0], [1, 1]]).view(3, 1, 1, 2))
    [reading] = of_job(Observation([], Features(taps, 2), ["a", "b", "a"], NotImplemented))
    assert reading.by_photograph == {"a": 0.25, "b": 1}
    assert reading.tap == "all"


def images(registry: Registry) -> None:
    static = registry.get(Images, "static")
    train, test = train_test_crops(static, static, 2, 2, 16)
    drawn = np.concatenate([train.pixels, test.pixels])
    assert drawn.shape == (4, 16, 16, 3)
    assert len(np.unique(drawn, axis=0)) == 4
    assert registry.get(Images, "static") is static


def readouts(registry: Registry) -> None:
    record = registry.get(Readout, "constant")
    features = Features((torch.rand(5, 4, 4, 2),), grid=4)
    patterns = torch.arange(32.0).view(2, 4, 4)
    training = Training(features=features, photographs=list("abcde"), patterns=patterns, image_size=16)
    drawn = record.fit(training).predict(features)
    assert drawn.shape == (5, 2, *[record.grid(4)] * 2)
    assert set(drawn[:, 0].flatten().tolist()) == {7.5}
    assert set(drawn[:, 1].flatten().tolist()) == {23.5}


def controls(registry: Registry) -> None:
    check_control(registry.get(Control, "without-means"))


def executors(registry: Registry) -> None:
    check_executor(registry.get(Executor, "one-by-one"))


WORKS: dict[str, Callable[[Registry], None]] = {
    "posbench_backbones": backbones,
    "posbench_find_backbone": find_backbone,
    "posbench_paddings": paddings,
    "posbench_targets": targets,
    "posbench_metrics": metrics,
    "posbench_images": images,
    "posbench_readouts": readouts,
    "posbench_controls": controls,
    "posbench_executors": executors,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_example_is_offered_and_works(hook: str, install: Callable[..., None]) -> None:
    install("posbench-example", example(hook))
    registry = load_registry()
    [plugin] = [plugin for plugin in registry.plugins if plugin.distribution == "posbench-example"]
    assert plugin.error is None
    assert plugin.hooks == [hook]
    WORKS[hook](registry)


def test_the_examples_together_make_a_run(install: Callable[..., None], posbench: Callable[..., Ran]) -> None:
    for number, hook in enumerate(HOOKS):
        install(f"posbench-example{number}", example(hook))
    options: dict[str, Any] = {
        "backbones": "two-taps,plain-2",
        "paddings": "edge",
        "targets": "diagonal",
        "metrics": "rmse,dead",
        "images": "static",
        "readouts": "constant",
        "executor": "one-by-one",
        "image-size": 32,
        "train-count": 4,
        "test-count": 3,
    }
    answer = posbench("run", "--quiet", "--csv", "-", *(f"--{name}={value}" for name, value in options.items()))
    assert answer.code == 0, answer.err
    header, *lines = (line.split(",") for line in answer.out.splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [(row["backbone"], row["padding"], row["target"], row["readout"]) for row in rows] == [
        ("two-taps", "edge", "diagonal", "constant"),
        ("plain-2", "edge", "diagonal", "constant"),
    ]
    # The best constant errs by the pattern's standard deviation: that of the diagonal, 1/√24, resized to 4×4.
    at = (np.arange(4) + 0.5) * 64 / 255 - 0.5 / 255
    expected = np.add.outer(at, at).std() / 2
    assert [float(row["rmse"]) for row in rows] == pytest.approx([expected] * 2)
