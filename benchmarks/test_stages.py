"""Time each stage of a job, and the network's plain forward pass, which is the lower bound.

    pytest benchmarks

Compare times of one run only: machines differ, and their speed drifts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.price import Bench, cut_photos
from posbench.bench.scoring import flatten_degenerate, summarised, values
from posbench.bench.targets import pattern
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.data.crops import Crops
from posbench.network.build import build, normalise
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.network.weights import Request, resolve
from posbench.plugin.components import Backbone, Metric, Padding, Target
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BACKBONE = "tf_efficientnet_lite0"
IMAGES, GRID = 64, 28
registry = load_registry()
backbone = registry.get(Backbone, BACKBONE)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    weights, _ = resolve(backbone, Request(), [0], download=False)
    return build(backbone, weights[0])


@pytest.fixture(scope="module")
def crops() -> Crops:
    return cut_photos(IMAGES, 8)[0]


@pytest.fixture(scope="module")
def features(network: torch.nn.Module, crops: Crops) -> Features:
    return extract(ForwardPass(network, backbone), crops, grid=GRID)


@pytest.fixture(scope="module")
def targets() -> torch.Tensor:
    return torch.stack([resize(pattern(registry.get(Target, name)), GRID - 2) for name in ("H", "V", "G", "HS", "VS")])


@pytest.mark.benchmark(group=f"{BACKBONE}, {IMAGES} images: one pass")
def test_plain_forward(benchmark: BenchmarkFixture, network: torch.nn.Module, crops: Crops) -> None:
    """Time the same network on the same pixels, taps discarded."""

    @torch.inference_mode()
    def forward() -> None:
        for start in range(0, IMAGES, 32):
            network(normalise(torch.from_numpy(crops.pixels[start : start + 32]), backbone))

    benchmark(forward)


@pytest.mark.benchmark(group=f"{BACKBONE}, {IMAGES} images: one pass")
@pytest.mark.parametrize("padding", ["zero", "circular", "reflect", "replicate"])
def test_extraction(benchmark: BenchmarkFixture, network: torch.nn.Module, crops: Crops, padding: str) -> None:
    strategy = registry.get(Padding, padding)
    benchmark(extract, ForwardPass(network, backbone, strategy), crops, grid=GRID)


@pytest.mark.benchmark(group=f"{BACKBONE}, {IMAGES} images: one pass")
def test_end_to_end(benchmark: BenchmarkFixture) -> None:
    """Time a bare job on as many images, from cutting them to storing its cells; price.py gives the ratio."""
    bench = Bench(BACKBONE, IMAGES * 4 // 5, IMAGES - IMAGES * 4 // 5)
    bench.job()  # builds the network
    benchmark(bench.job)


@pytest.mark.benchmark(group=f"{BACKBONE}, {IMAGES} images: after the pass")
def test_ridge_of_five_targets(benchmark: BenchmarkFixture, features: Features, targets: torch.Tensor) -> None:
    benchmark(fit_ridge, features, targets, kernel=3, penalty=1.0)


@pytest.mark.benchmark(group=f"{BACKBONE}, {IMAGES} images: after the pass")
def test_scoring_of_one_target(
    benchmark: BenchmarkFixture, features: Features, targets: torch.Tensor, crops: Crops
) -> None:
    predictions = fit_ridge(features, targets, kernel=3, penalty=1.0).predict(features)
    metrics = [registry.get(Metric, name) for name in ("spc", "mae", "r2")]

    def every_metric() -> None:
        maps, _ = flatten_degenerate(predictions[:, 0], targets[0])
        for metric in metrics:
            summarised(metric, values(metric, maps, targets[0]), crops.photographs)

    benchmark(every_metric)
