"""The user's own modules as backbones: taps, identity, and that the module is never changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import posbench
from posbench.core.errors import Inapplicable, UsageError
from posbench.network.build import build, normalise, smallest_size
from posbench.network.user_module import state_digest
from posbench.network.weights import Request, Weights, resolve


class Net(nn.Module):
    """Two convolutions, an in-place activation, and a head."""

    def __init__(self, *, stride: int = 4) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.two = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.unused = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(12 * 28 * 28, 4)
        self.runs_of_head = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.act(self.norm(self.one(x))))
        self.runs_of_head += 1
        return self.head(x.flatten(1))


def weights(record: posbench.Backbone) -> Weights:
    [own], problem = resolve(record, Request(), [0], download=False)
    assert problem is None
    return own


def test_layers_are_read_as_they_were_before_others_overwrote_them() -> None:
    net = Net().eval()
    x = torch.randn(2, 3, 64, 64)
    record = posbench.backbone(net, ["norm", "two"])
    assert (record.name, record.taps) == ("Net", 2)
    first, second = build(record, weights(record))(x)
    normed = net.norm(net.one(x))
    assert first.min() < 0
    torch.testing.assert_close(first, normed)
    torch.testing.assert_close(second, net.two(normed.relu()))


def test_nothing_beyond_the_last_layer_runs() -> None:
    record = posbench.backbone(Net(), ["one"])
    network = build(record, weights(record))
    before = network.module.runs_of_head
    network(torch.zeros(1, 3, 32, 32))  # of which the head could not take the features
    assert network.module.runs_of_head == before


def test_a_function_reads_what_it_likes() -> None:
    net = Net().eval()
    record = posbench.backbone(net, lambda module, x: [module.one(x), module.two(module.one(x))])
    x = torch.randn(1, 3, 32, 32)
    first, second = build(record, weights(record))(x)
    assert record.taps == 2
    torch.testing.assert_close(first, net.one(x))
    torch.testing.assert_close(second, net.two(net.one(x)))


def test_a_module_may_return_its_taps_itself() -> None:
    class Maps(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, x[..., ::2, ::2]]

    assert posbench.backbone(Maps()).taps == 2


@pytest.mark.parametrize("training", [True, False])
def test_the_users_module_is_left_as_it_is_bit_for_bit(training: bool) -> None:
    net = Net().double().train(training)
    net.one.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    layers = dict(net.named_modules())
    random = torch.get_rng_state()
    record = posbench.backbone(net, ["norm", "two"], name="mine")
    results = posbench.run(
        backbones=[record],
        paddings="zero,circular",
        targets="H",
        images="leaves",
        image_size=64,
        train_count=4,
        test_count=2,
        device="cpu",
        precision="fp32",
    )
    assert [row["status"] for row in results.rows] == ["ok", "ok"]
    assert net.training is training
    assert {name: parameter.requires_grad for name, parameter in net.named_parameters()} == flags
    assert dict(net.named_modules()) == layers
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())
    assert net.runs_of_head == 0
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in net.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name


def test_training_on_changes_nothing_that_was_handed_over() -> None:
    net = Net()
    record = posbench.backbone(net, ["one"])
    was = net.one.weight.detach().clone()
    with torch.no_grad():
        net.one.weight.add_(1)
    assert torch.equal(build(record, weights(record)).module.one.weight, was)


def test_its_weights_are_its_own() -> None:
    net = Net()
    record = posbench.backbone(net, ["one"], name="mine")
    resolved = weights(record)
    assert resolved.digest == record.own_weights == state_digest(net)
    assert resolved.label == f"module:mine@{resolved.digest[:8]}"
    assert weights(posbench.backbone(copy.deepcopy(net), ["one"])).digest == resolved.digest
    with torch.no_grad():
        net.norm.running_mean[3] += 1e-6
    assert weights(posbench.backbone(net, ["one"])).digest != resolved.digest


def test_a_digest_follows_from_names_and_values() -> None:
    linear = nn.Linear(2, 1)
    other = copy.deepcopy(linear)
    assert state_digest(linear) == state_digest(other)
    with torch.no_grad():
        other.weight.copy_(linear.weight.flip(1))
    assert state_digest(linear) != state_digest(other)
    assert state_digest(nn.Sequential(linear)) != state_digest(linear)


def test_what_weights_do_not_show_is_in_the_version() -> None:
    torch.manual_seed(1)
    net = Net()
    other = Net(stride=2)
    other.load_state_dict(net.state_dict())
    version = posbench.backbone(net, ["one"]).version
    assert posbench.backbone(copy.deepcopy(net), ["one"]).version == version
    changed = [
        posbench.backbone(other, ["one"]),
        posbench.backbone(net, ["two"]),
        posbench.backbone(net, lambda module, x: [module.one(x)]),
        posbench.backbone(net, lambda module, x: [module.one(x) + 1]),
        posbench.backbone(net, ["one"], mean=(0, 0, 0)),
        posbench.backbone(net, ["one"], version="2"),
    ]
    assert len({record.version for record in changed} | {version}) == 1 + len(changed)


def test_images_too_small_are_found_out_by_shapes_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 40))
    record = posbench.backbone(net, ["0"])
    assert smallest_size(record, 32) == 64
    assert smallest_size(record, 40) == 40


def test_it_is_made_untrained_by_its_layers() -> None:
    net = Net()
    with torch.no_grad():
        net.one.weight.fill_(7)
    record = posbench.backbone(net, ["two"])
    [untrained], _ = resolve(record, Request("random"), [3], download=False)
    assert untrained.label == "random:3"
    drawn = build(record, untrained).module
    assert drawn.one.weight.abs().max() < 1
    assert torch.equal(build(record, untrained).module.one.weight, drawn.one.weight)
    assert (build(record, weights(record)).module.one.weight == 7).all()


def test_it_is_not_called_untrained_if_a_layer_cannot_be() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((3, 1, 1), 7.0))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x * self.scale]

    record = posbench.backbone(Own())
    with pytest.raises(Inapplicable, match="reset_parameters"):
        build(record, Weights("random:0", seed=0))


def test_a_file_of_weights_is_for_the_module_to_load() -> None:
    record = posbench.backbone(Net(), ["one"], name="mine")
    with pytest.raises(UsageError, match="load it into the module"):
        resolve(record, Request(files={"mine": __file__}), [0], download=False)


def test_normalisation_is_the_users() -> None:
    record = posbench.backbone(Net(), ["one"], mean=torch.tensor([0.5, 0.5, 0.5]), std=[0.25, 0.25, 0.5])
    pixels = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    assert normalise(pixels, record).flatten().tolist() == [2, 2, 1]


class Twice(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.act(self.act(self.one(x))))


@pytest.mark.parametrize(
    ("module", "taps", "message"),
    [
        (Net(), ["tow"], "unknown layer 'tow': did you mean two"),
        (Net(), [], "give a list"),
        (Net(), "one", "give a list"),
        (Net(), ["one", "one"], "different"),
        (Net(), ["unused"], "does not run"),
        (Net(), ["head"], "no map"),
        (Net(), None, "no map"),
        (Twice(), ["act"], "runs more than once"),
        (Net(), lambda module, x: [], "no taps"),
        (Net(), lambda module, x: 1 / 0, "ZeroDivisionError"),
        (nn.Sequential(nn.Conv2d(5, 3, 1)), ["0"], "cannot take an image of 224"),
        ("resnet50", ["0"], "expected a torch.nn.Module"),
    ],
)
def test_mistakes_are_told_at_once(module: nn.Module, taps: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        posbench.backbone(module, taps)  # type: ignore[arg-type]


def test_a_name_and_a_norm_must_fit() -> None:
    with pytest.raises(UsageError, match="no name"):
        posbench.backbone(Net(), ["one"], name="my net")
    given: object
    for given in (5, (0.5,), (0.5, 0.5, float("nan")), "abc"):
        with pytest.raises(UsageError, match=r"^module Net: mean is .*: give three numbers, for red, green and blue$"):
            posbench.backbone(Net(), ["one"], mean=given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"std is .*: give three numbers, for red, green and blue, each above 0"):
        posbench.backbone(Net(), ["one"], std=(0.2, 0, 0.2))
