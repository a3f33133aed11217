"""Padding strategies in operations and networks, against np.pad followed by the unpadded operation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from timm.layers import AvgPool2dSame, BlurPool2d, Conv2dSame, EcaModule
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from posbench.core.errors import Inapplicable, PosbenchError
from posbench.network.padding import apply_padding
from posbench.plugin.components import Backbone, Padding
from posbench.plugin.operation import Sides
from posbench.plugin.registry import load_registry

Map = NDArray[np.float64]

REGISTRY = load_registry()
#: What numpy calls the built-in strategies.
NUMPY: dict[str, Any] = {
    "zero": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "mean": "mean over the map",
}
COPYING = ["circular", "reflect", "symmetric", "replicate", "mean"]


def strategy(name: str) -> Padding:
    return REGISTRY.get(Padding, name)


def padded(x: Map, rows: tuple[int, int], columns: tuple[int, int], name: str) -> Map:
    if name == "mean":
        larger = np.pad(x - x.mean((2, 3), keepdims=True), ((0, 0), (0, 0), rows, columns))
        return larger + x.mean((2, 3), keepdims=True)
    return np.pad(x, ((0, 0), (0, 0), rows, columns), mode=NUMPY[name])


def convolved(x: Map, layer: nn.Conv2d) -> Map:
    """Compute a convolution without padding, one output cell at a time."""
    weight = layer.weight.detach().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
    (kh, kw), (sh, sw), (dh, dw) = weight.shape[2:], layer.stride, layer.dilation
    height = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    out = np.empty((len(x), len(weight), height, width))
    of_group, per_group = weight.shape[1], len(weight) // layer.groups
    for channel, row, column in itertools.product(range(len(weight)), range(height), range(width)):
        first = channel // per_group * of_group
        rows = row * sh + dh * np.arange(kh)
        columns = column * sw + dw * np.arange(kw)
        patch = x[:, first : first + of_group][:, :, rows][:, :, :, columns]
        out[:, channel, row, column] = (patch * weight[channel]).sum((1, 2, 3)) + bias[channel]
    return out


def pooled(x: Map, kernel: int, stride: int, side: tuple[int, int], how: Any) -> Map:
    """Compute a pooling without padding; windows that start on the map but extend beyond it are cut off."""
    out = np.empty((*x.shape[:2], *side))
    for row, column in itertools.product(*map(range, side)):
        top, left = row * stride, column * stride
        out[:, :, row, column] = how(x[:, :, top : top + kernel, left : left + kernel], axis=(2, 3))
    return out


def maps(seed: int, height: int, width: int, channels: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


@torch.no_grad()
def under(name: str, layer: nn.Module, x: torch.Tensor) -> Map:
    with apply_padding(strategy(name), layer):
        return np.asarray(layer(x))


sizes = st.integers(7, 10)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(NUMPY)),
    size=st.tuples(sizes, sizes),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_convolution_sees_what_numpy_pads(
    name: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    padding: tuple[int, int],
    bias: bool,
    seed: int,
) -> None:
    x = maps(seed, *size)
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias).double()
    expected = convolved(padded(x.numpy(), (padding[0],) * 2, (padding[1],) * 2, name), layer)
    np.testing.assert_allclose(under(name, layer, x), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(NUMPY)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    seed=st.integers(0, 2**16),
)
def test_same_puts_the_odd_cell_last(name: str, kernel: tuple[int, int], dilation: tuple[int, int], seed: int) -> None:
    x = maps(seed, 8, 9)
    layer = nn.Conv2d(4, 2, kernel, padding="same", dilation=dilation).double()
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    expected = convolved(padded(x.numpy(), rows, columns, name), layer)
    assert expected.shape[2:] == (8, 9)
    np.testing.assert_allclose(under(name, layer, x), expected, atol=1e-12)


@pytest.mark.parametrize("name", COPYING)
def test_valid_convolutions_are_not_padded(name: str) -> None:
    layer, x = nn.Conv2d(4, 2, 3, padding="valid").double(), maps(0, 6, 6)
    np.testing.assert_allclose(under(name, layer, x), convolved(x.numpy(), layer), atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(COPYING),
    size=st.tuples(sizes, sizes),
    kernel=st.integers(2, 5),
    stride=st.integers(1, 3),
    share=st.floats(0, 1),
    ceil_mode=st.booleans(),
    average=st.booleans(),
    count_include_pad=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_pooling_sees_what_numpy_pads(
    name: str,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    share: float,
    ceil_mode: bool,
    average: bool,
    count_include_pad: bool,
    seed: int,
) -> None:
    padding = round(share * (kernel // 2))
    x = maps(seed, *size)
    layer: nn.Module = (
        nn.AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad)
        if average
        else nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
    )
    # The strategy changes what is seen, never how many cells come out.
    native = layer(x).shape
    height, width = native[2:]
    wide = padded(x.numpy(), (padding,) * 2, (padding,) * 2, name)
    expected = pooled(wide, kernel, stride, (height, width), np.mean if average else np.max)
    got = under(name, layer, x)
    assert got.shape == native
    np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(COPYING),
    size=st.tuples(sizes, sizes),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    kind=st.sampled_from(["convolution", "maximum", "average"]),
    seed=st.integers(0, 2**16),
)
def test_tensorflow_padding_before_an_operation_is_replaced(
    name: str, size: tuple[int, int], kernel: int, stride: int, kind: str, seed: int
) -> None:
    x = maps(seed, *size)
    # TensorFlow's "same": as many cells as an output of size/stride, rounded up, needs; the odd one last.
    totals = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in size]
    assume(kind == "convolution" or kernel >= 2)
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    wide = padded(x.numpy(), rows, columns, name)
    side = (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    layer: nn.Module
    if kind == "convolution":
        convolution = Conv2dSame(4, 2, kernel, stride).double()
        layer, expected = convolution, convolved(wide, convolution)
    elif kind == "maximum":
        layer, expected = MaxPool2dSame(kernel, stride), pooled(wide, kernel, stride, side, np.max)
    else:
        layer, expected = AvgPool2dSame(kernel, stride), pooled(wide, kernel, stride, side, np.mean)
    np.testing.assert_allclose(under(name, layer, x), expected, atol=1e-12)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = REGISTRY.get(Backbone, name).build().eval()
    for parameter in (p for name, p in network.named_parameters() if name.endswith("gamma")):
        nn.init.ones_(parameter)  # layer scales start at 1e-6: borders would hardly show
    return network


NETWORKS = ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_050", "regnety_002"]
MORE_NETWORKS = ["vgg11", "densenet121", "inception_v3", "repvgg_a0", "dla34", "hrnet_w18_small"]


@pytest.mark.parametrize("network", [*NETWORKS, *MORE_NETWORKS])
@torch.no_grad()
def test_zero_leaves_a_network_bit_identical(network: str) -> None:
    odd = network not in ("dla34", "hrnet_w18_small")  # which add maps of one size only if the image divides by 32
    built, x = build(network), torch.randn(2, 3, *((97, 130) if odd else (96, 128)))
    before = built(x)
    with apply_padding(strategy("zero"), built):
        named = built(x)
    with apply_padding(None, built):
        native = built(x)
    # Zeros put there by hand, before an operation without padding, must come to the same.
    by_hand = Padding(name="by-hand", summary="", version="1", pad=lambda x, sides: F.pad(x, sides))
    with apply_padding(by_hand, built):
        replaced = built(x)
    for taps in (named, native, replaced):
        assert all(torch.equal(a, b) for a, b in zip(before, taps, strict=True))


@pytest.mark.parametrize("network", [*NETWORKS, "vgg11", "densenet121", "seresnet18", "resnet26d"])
@torch.no_grad()
def test_under_circular_padding_a_shifted_image_has_shifted_taps(network: str) -> None:
    # True of the whole network only if no padded operation escapes.
    built, x = build(network).double(), torch.randn(1, 3, 128, 128, dtype=torch.float64)
    with apply_padding(strategy("circular"), built):
        still, moved = built(x), built(x.roll((32, 64), (2, 3)))
    for a, b in zip(still, moved, strict=True):
        stride = 128 // a.shape[-1]
        torch.testing.assert_close(a.roll((32 // stride, 64 // stride), (2, 3)), b, rtol=1e-9, atol=1e-9)
    shifted = built(x.roll((32, 64), (2, 3)))[-1]
    assert not torch.allclose(built(x)[-1].roll((1, 2), (2, 3)), shifted, rtol=1e-3)


@pytest.mark.parametrize("name", COPYING)
@torch.no_grad()
def test_blur_pooling_and_channel_attention_stay_as_they_are(name: str) -> None:
    x = torch.randn(2, 8, 12, 12)
    for layer in (BlurPool2d(8), EcaModule(8, kernel_size=3)):
        before = layer(x)
        with apply_padding(strategy(name), layer):
            assert torch.equal(layer(x), before)


@torch.no_grad()
def test_pads_that_are_not_of_constants_around_a_map_stay_as_they_are() -> None:
    x = torch.randn(2, 4, 6, 6)
    with apply_padding(strategy("replicate"), nn.Identity()):
        assert torch.equal(F.pad(x, (1, 1, 1, 1), mode="reflect"), torch.from_numpy(np.pad(x, _AROUND, mode="reflect")))
        # Channels added to a shortcut, and cells cut off.
        assert F.pad(x, (0, 0, 0, 0, 0, 2))[:, 4:].abs().sum() == 0
        assert torch.equal(F.pad(x, (-1, -1, -2, -2)), x[:, :, 2:-2, 1:-1])


_AROUND = ((0, 0), (0, 0), (1, 1), (1, 1))


@torch.no_grad()
def test_the_strategy_ends_with_its_context() -> None:
    layer, x = nn.Conv2d(3, 2, 3, padding=1), torch.ones(1, 3, 5, 5)
    before = layer(x)
    with apply_padding(strategy("circular"), layer):
        assert not torch.equal(layer(x), before)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("name", COPYING)
@torch.no_grad()
def test_mixed_precision_keeps_its_type(name: str) -> None:
    layer, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1)), torch.randn(1, 3, 8, 8)
    with apply_padding(strategy(name), layer):
        full = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


def narrow() -> nn.Module:
    network = nn.Module()
    network.add_module("stem", nn.Sequential())
    network.stem.add_module("conv", nn.Conv2d(1, 1, 9, padding=4))  # type: ignore[operator, union-attr]
    network.forward = lambda x: network.stem(x)  # type: ignore[method-assign, operator]
    return network


@pytest.mark.parametrize(("name", "widest"), [("reflect", 3), ("circular", 4), ("replicate", 1000)])
def test_a_map_too_narrow_is_inapplicable_at_a_named_layer(name: str, widest: int) -> None:
    network = narrow()
    # With 4 cells to add on every side, reflection needs maps of 5 cells and circular padding maps of 4.
    least = {"reflect": 5, "circular": 4, "replicate": 1}[name]
    assert under(name, network, torch.zeros(1, 1, least, least)).shape == (1, 1, least, least)
    if least > 1:
        with pytest.raises(Inapplicable, match=rf"^stem\.conv: {name}"):
            under(name, network, torch.zeros(1, 1, least - 1, 9))
        with pytest.raises(Inapplicable, match=rf"^stem\.conv: {name}"):
            under(name, network, torch.zeros(1, 1, 9, least - 1))


@pytest.mark.parametrize("layer", [nn.MaxPool2d(7, padding=3), nn.AvgPool2d(7, padding=3)])
def test_a_pooling_of_a_map_too_narrow_is_inapplicable(layer: nn.Module) -> None:
    with pytest.raises(Inapplicable, match="pooling"):
        under("reflect", layer, torch.zeros(1, 1, 3, 9))


def test_transposed_convolutions_are_inapplicable() -> None:
    with pytest.raises(Inapplicable, match="transposed"):
        under("circular", nn.ConvTranspose2d(1, 1, 3, padding=1), torch.zeros(1, 1, 5, 5))


def test_a_pooling_that_returns_indices_is_refused() -> None:
    with pytest.raises(Inapplicable, match="returns indices"):
        under("circular", nn.MaxPool2d(3, 1, 1, return_indices=True), maps(0, 7, 7))


def too_large(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    return F.pad(x, (9, 9, 9, 9))


def untouched(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    return x


def transposed(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    return F.pad(x, sides).mT


def doubled(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    return F.pad(x, sides).double()


def elsewhere(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    return F.pad(x, sides).to("meta")


@pytest.mark.parametrize("pad", [too_large, untouched, transposed, doubled, elsewhere])
def test_a_strategy_that_returns_another_map_is_named(pad: Any) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=(1, 2)))
    wrong = Padding(name="wrong", summary="", version="1", pad=pad)
    with (
        pytest.raises(
            PosbenchError, match=r"padding 'wrong' returned .* at 0; expected torch.float32 \(1, 1, 7, 9\)"
        ) as e,
        apply_padding(wrong, network),
    ):
        network(torch.zeros(1, 1, 5, 5))
    assert not isinstance(e.value, Inapplicable)


def test_sides_come_as_left_right_top_bottom() -> None:
    all_sides: list[Sides] = []

    def pad(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        all_sides.append(sides)
        return F.pad(x, sides)

    recording = Padding(name="recording", summary="", version="1", pad=pad)
    x = torch.zeros(1, 1, 9, 9)
    with apply_padding(recording, nn.Identity()):
        F.conv2d(x, torch.zeros(1, 1, 3, 5), padding=(1, 2))
        F.conv2d(x, torch.zeros(1, 1, 2, 3), padding="same")
        F.pad(x, (1, 2, 3, 4))
        F.max_pool2d(x, (3, 5), padding=(1, 2))
        F.avg_pool2d(x, (3, 5), padding=(1, 2))
        F.conv2d(x, torch.zeros(1, 1, 1, 1))
    assert all_sides == [(2, 2, 1, 1), (1, 1, 0, 1), (1, 2, 3, 4), (2, 2, 1, 1), (2, 2, 1, 1)]


def test_every_padded_convolution_of_a_timm_network_is_reached() -> None:
    network = timm.create_model("resnet18").eval()
    sites = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d) and m.padding not in (0, (0, 0))]
    calls: list[Sides] = []

    def pad(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        calls.append(sides)
        return F.pad(x, sides)

    with torch.no_grad(), apply_padding(Padding(name="counting", summary="", version="1", pad=pad), network):
        network(torch.zeros(1, 3, 64, 64))
    assert len(calls) == len(sites) == 18
