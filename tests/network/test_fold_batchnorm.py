"""Fusion of BatchNorm into convolutions: the same results, and no fusion where it would change them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from posbench.network.build import prepare_random
from posbench.network.fold_batchnorm import fold_norms
from posbench.plugin.components import Backbone
from posbench.plugin.registry import load_registry


class Net(nn.Module):
    """A convolution and its normalisation, with an optional tap between them."""

    def __init__(self, *, between: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.between, self.twice = between, twice

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        raw = self.one(x)
        taps = [self.norm(raw).relu()]
        if self.between:
            taps.append(raw)
        if self.twice:
            taps.append(self.norm(self.one(x.flip(-1))))
        return taps


def known(network: Net) -> Net:
    """Set non-trivial statistics, scales and shifts."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (network.norm.running_mean, network.norm.running_var, network.norm.weight, network.norm.bias):
        assert tensor is not None
        tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return network.eval()


def test_scale_and_shift_go_into_weights_and_bias() -> None:
    """Check (w·x + b − μ) / √(σ² + ε) · γ + β by hand, with w = 2, b = 1, μ = 3, σ² + ε = 4, γ = 6, β = 5."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)).eval()
    convolution, norm = network
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    for tensor, value in (
        *((convolution.weight, 2.0), (convolution.bias, 1.0), (norm.running_mean, 3.0), (norm.running_var, 3.0)),
        *((norm.weight, 6.0), (norm.bias, 5.0)),
    ):
        assert tensor is not None
        tensor.data.fill_(value)
    fold_norms(network, torch.zeros(1, 1, 2, 2))
    assert convolution.weight.item() == 6
    assert convolution.bias is not None
    assert convolution.bias.item() == -1
    assert network(torch.full((1, 1, 1, 1), 10.0)).item() == 59


def test_what_is_folded_computes_the_same() -> None:
    network = known(Net())
    image = torch.rand(2, 3, 9, 8)
    before = network(image)
    fold_norms(network, image[:1])
    assert isinstance(network.norm, nn.Identity)
    assert torch.allclose(network(image)[0], before[0], atol=1e-6)


def parametrised(network: Net) -> Net:
    parametrizations.weight_norm(network.one)
    return network


def listened_to(network: Net) -> Net:
    network.one.register_forward_hook(lambda *_: None)
    return network


def tied(network: Net) -> Net:
    class Tied(Net):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [*super().forward(x), self.other(x)]

    tied = Tied()
    tied.load_state_dict(network.state_dict())
    tied.other = nn.Conv2d(3, 4, 3, padding=1)
    tied.other.weight = tied.one.weight
    return tied.eval()


def batchwise(network: Net) -> Net:
    network.norm.running_mean = network.norm.running_var = None
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda: known(Net(between=True)),
        lambda: known(Net(twice=True)),
        lambda: parametrised(known(Net())),
        lambda: listened_to(known(Net())),
        lambda: tied(known(Net())),
        lambda: batchwise(known(Net())),
    ],
    ids=["read between", "run twice", "computed weights", "hooks", "shared weights", "statistics of the batch"],
)
def test_what_something_else_depends_on_is_left_alone(make: Callable[[], Net]) -> None:
    network = make()
    image = torch.rand(1, 3, 9, 8)
    before, untouched = network(image), copy.deepcopy(network.state_dict())
    fold_norms(network, image)
    assert isinstance(network.norm, nn.BatchNorm2d)
    assert all(torch.equal(value, untouched[name]) for name, value in network.state_dict().items())
    assert all(map(torch.equal, network(image), before))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("tf_efficientnet_lite0", 1),  # behind the last tap
        ("resnet50", 0),
        ("densenet121", 62),  # normalises what several layers made
        ("inception_v3", 0),
        ("regnety_008", 0),
        ("hrnet_w18_small", 4),
        ("vgg16_bn", 0),
    ],
)
def test_networks_compute_the_same(name: str, left: int) -> None:
    record = load_registry().get(Backbone, name)
    network = record.build().eval()
    prepare_random(network, record)
    image = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        before = network(image)
    fold_norms(network, torch.zeros(1, 3, 224, 224))
    with torch.inference_mode():
        after = network(image)
    for tap, other in zip(before, after, strict=True):
        assert float((tap - other).abs().max() / tap.abs().max()) < 2e-4
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == left
