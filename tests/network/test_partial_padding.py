"""Padding strategies that compute whole operations, above all partial convolution, against their formula."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from posbench.network.padding import apply_padding, padded_operations
from posbench.plugin.components import Padding
from posbench.plugin.operation import Sides
from tests.network.test_padding import Map, build, maps, pairs, strategy, too_large, under


def windowed(
    x: Map, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], sides: Sides
) -> list[tuple[int, int, Map, NDArray[np.bool_]]]:
    """Return every window of a padded map: its place, its values, and which of them are inside the map."""
    left, right, top, bottom = sides
    around = ((top, bottom), (left, right))
    larger = np.pad(x, ((0, 0), (0, 0), *around))
    inside = np.pad(np.ones(x.shape[2:], bool), around)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(larger.shape[2:], reach, stride, strict=True)]
    windows = []
    for row, column in itertools.product(*map(range, counts)):
        rows = slice(row * stride[0], row * stride[0] + reach[0], dilation[0])
        columns = slice(column * stride[1], column * stride[1] + reach[1], dilation[1])
        windows.append((row, column, larger[:, :, rows, columns], inside[rows, columns]))
    return windows


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    kernel=pairs,
    stride=pairs,
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    around=st.tuples(*[st.integers(0, 3)] * 4),
    apart=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_partial_convolution_is_its_formula(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    around: Sides,
    apart: bool,
    bias: bool,
    seed: int,
) -> None:
    # Liu et al., arXiv 1811.11718, eq. 2: the sum over those of the window's cells that are in the map, times the
    # window's size over their number, + bias; where there are none, the bias.
    sides = around if apart else (around[0], around[0], around[1], around[1])
    left, right, top, bottom = sides
    assume(size[0] + top + bottom > dilation[0] * (kernel[0] - 1))
    assume(size[1] + left + right > dilation[1] * (kernel[1] - 1))
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 4, kernel, stride, 0 if apart else (top, left), dilation, groups, bias=bias).double()
    network = nn.Sequential(nn.ZeroPad2d(sides), layer) if apart else layer
    x = maps(seed, *size)
    got = under("partial", network, x)
    weight, per_group = layer.weight.detach().numpy(), 4 // groups
    expected = np.zeros_like(got)
    for row, column, window, inside in windowed(x.numpy(), kernel, stride, dilation, sides):
        for channel in range(4):
            first = channel // per_group * per_group
            total = (window[:, first : first + per_group] * weight[channel]).sum((1, 2, 3))
            ratio = inside.size / inside.sum() if inside.any() else 0
            expected[:, channel, row, column] = total * ratio + (layer.bias[channel].item() if bias else 0)
    np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(6, 2), (7, 3), (8, 3)])
def test_partial_pooling_of_rounded_size_is_over_the_cells_that_are_there(ceil: bool, size: int, stride: int) -> None:
    x = maps(0, size, size)
    layer = nn.AvgPool2d(4, stride, 1, ceil_mode=ceil, divisor_override=None if ceil else 5)
    got = under("partial", layer, x)
    for row, column in itertools.product(*map(range, got.shape[2:])):
        top, left = (max(0, at * stride - 1) for at in (row, column))
        window = x[:, :, top : row * stride + 3, left : column * stride + 3]
        np.testing.assert_allclose(got[:, :, row, column], window.mean((2, 3)), atol=1e-12)


@torch.no_grad()
def test_partial_answers_every_padded_operation_of_a_network() -> None:
    for name in ("resnet18", "tf_efficientnet_lite0"):
        network, x = build(name), torch.randn(1, 3, 64, 64)
        answered: list[str] = []

        def operate(operation: Any, answered: list[str] = answered) -> torch.Tensor:
            answered.append(operation.kind)
            return operation.native()  # type: ignore[no-any-return]

        with apply_padding(Padding(name="counting", summary="", version="1", operate=operate), network):
            network(x)
        assert len(answered) == len(padded_operations(network, x)) > 15


def test_a_map_that_two_operations_read_is_answered_twice() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.pad(x, (1, 1, 1, 1))
            return self.conv(y) - self.conv(y)

    assert not under("partial", Two(), maps(0, 6, 6)).any()


@torch.no_grad()
def test_one_cell_windows_called_same_need_no_padding() -> None:
    layer = nn.Conv2d(3, 4, 1, padding="same")
    assert padded_operations(layer, torch.randn(1, 3, 6, 6)) == []


@pytest.mark.parametrize("counted", [False, True])
def test_partial_pooling_is_over_the_cells_that_are_there(counted: bool) -> None:
    x = maps(0, 7, 8)
    average = under("partial", nn.AvgPool2d(3, 2, 1, count_include_pad=counted), x)
    greatest = under("partial", nn.MaxPool2d(3, 2, 1), x)
    for row, column, window, inside in windowed(x.numpy(), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)):
        np.testing.assert_allclose(average[:, :, row, column], window[:, :, inside].mean(2), atol=1e-12)
        np.testing.assert_allclose(greatest[:, :, row, column], window[:, :, inside].max(2), atol=1e-12)


def test_partial_convolution_of_a_constant_map_has_no_border() -> None:
    # Every window that is scaled up holds the same as one that need not be, if the kernel is even over its cells.
    layer = nn.Conv2d(2, 3, 3, padding=1).double()
    nn.init.constant_(layer.weight, 0.5)
    got = under("partial", layer, torch.ones(1, 2, 5, 6, dtype=torch.float64))
    assert np.allclose(got, got[:, :, 2:3, 2:3])


@torch.no_grad()
def test_partial_convolution_in_mixed_precision() -> None:
    layer, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 8, 8)
    with apply_padding(strategy("partial"), layer):
        full = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


def test_one_operation_is_answered_by_one_function() -> None:
    with pytest.raises(ValueError, match="give pad or operate, not both"):
        Padding(name="two", summary="", version="1", pad=too_large, operate=lambda operation: operation.native())
    with pytest.raises(ValueError, match="border is 'crop'; it must be one of keep, drop, surround"):
        Padding(name="two", summary="", version="1", border="crop")
