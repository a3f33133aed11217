"""Which pixels cells depend on: by hand, and against what changes when a pixel does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from posbench.core.errors import Inapplicable
from posbench.network.receptive_field import ReceptiveField, ReceptiveFieldTracer, Span
from posbench.plugin.components import Backbone
from posbench.plugin.registry import load_registry

REGISTRY = load_registry()


@torch.no_grad()
def followed(
    network: nn.Module, size: int = 16, width: int | None = None
) -> tuple[torch.Tensor, ReceptiveField | None]:
    """What a network makes of an image, and what its cells see."""
    with ReceptiveFieldTracer(network, size) as tracer:
        made = network(tracer.mark(torch.randn(1, 3, size, width or size)))
    return made, tracer.receptive_field(made)


class Calls(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)  # type: ignore[operator, no-any-return]


def test_a_window_widens_what_is_seen() -> None:
    # A 7×7 convolution with stride 2 and three cells before: cell 0 is centred on pixel 0 and sees -3 … 3.
    first = Span().after_window(7, 2, 1, 3)
    assert first == Span(2, -3, 3)
    # A 3×3 pooling with stride 2 then sees one cell, two pixels, more on either side.
    second = first.after_window(3, 2, 1, 1)
    assert second == Span(4, -5, 5)
    # A dilated 3×3 convolution reaches two cells of four pixels.
    assert second.after_window(3, 1, 2, 2) == Span(4, -13, 13)


def test_free_cells_by_hand() -> None:
    # Of 8 cells on 16 pixels, cell j sees 2j-3 … 2j+3: cells 2 (1 … 7) to 6 (9 … 15) lie within.
    assert Span(2, -3, 3).padding_free(16, 8) == slice(2, 7)
    assert Span(2, -3, 3).min_image_size() == 8  # cell 2 sees up to pixel 7
    assert Span(4, 0, 6).padding_free(16, 4) == slice(0, 3)
    assert Span(2, -30, 30).padding_free(16, 8) == slice(15, 15)
    assert Span().padding_free(5, 5) == slice(0, 5)


def test_vgg16_keeps_two_cells_of_its_last_tap_as_the_paper_has_it() -> None:
    # Islam, Jia & Bruce, Table 4: without padding conv5_3 shrinks to 2×2.
    network = REGISTRY.get(Backbone, "vgg16").build().eval()
    with torch.no_grad(), ReceptiveFieldTracer(network, 224) as tracer:
        taps = network(tracer.mark(torch.zeros(1, 3, 224, 224)))
    free = [view.padding_free(224, tap.shape)[0] for tap in taps if (view := tracer.receptive_field(tap))]
    assert [part.stop - part.start for part in free] == [220, 106, 46, 16, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conv", "max", "average", "pad"]),
            st.integers(1, 4),  # kernel
            st.integers(1, 3),  # stride
            st.integers(1, 2),  # dilation
            st.integers(0, 2),  # padding
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(12, 17),
)
def test_free_cells_are_those_that_no_padding_changes(layers: list[tuple[str, int, int, int, int]], size: int) -> None:
    made = nn.Sequential()
    for kind, kernel, stride, dilation, padding in layers:
        padding = min(padding, kernel // 2)
        if kind == "conv":
            made.append(nn.Conv2d(3, 3, kernel, stride, padding, dilation))
        elif kind == "max":
            made.append(nn.MaxPool2d(kernel, stride, padding))
        elif kind == "average":
            made.append(nn.AvgPool2d(kernel, stride, padding))
        else:
            made.append(nn.ZeroPad2d((padding, kernel, stride - 1, dilation)))
    # A cell is free if all that its window holds is: the least of it, padding counting as 0.
    free = torch.ones(1, 1, size, size)
    for layer in made:
        free = F.pad(free, surrounded(layer))
        if not isinstance(layer, nn.ZeroPad2d):
            window = (layer.kernel_size, layer.stride, 0, getattr(layer, "dilation", 1))
            if min(free.shape[2:]) <= 2 * 3:
                return  # hardly any window fits
            free = -F.max_pool2d(-free, *window)
    image, view = followed(made, size)
    assert view is not None
    expected = torch.zeros_like(free[0, 0])
    expected[view.padding_free(size, image.shape)] = 1
    assert torch.equal(free[0, 0], expected)


def surrounded(layer: nn.Module) -> tuple[int, int, int, int]:
    """The cells that a layer adds at the left, right, top and bottom."""
    if isinstance(layer, nn.ZeroPad2d):
        return layer.padding
    side = layer.padding[0] if isinstance(layer.padding, tuple) else layer.padding
    return (side, side, side, side)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.conv(x).relu_(),
        lambda net, x: net.conv(x) + x,
        lambda net, x: x.mul_(2).add(net.conv(x)),
        lambda net, x: torch.cat([x, net.conv(x)], dim=1),
        lambda net, x: torch.stack(net.conv(x).chunk(3, dim=1)).sum(0),
        lambda net, x: F.layer_norm(net.conv(x).permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2),
        lambda net, x: F.linear(net.conv(x).transpose(1, 3), torch.ones(5, 3)).transpose(1, 3),
        lambda net, x: net.conv(x).view(1, 3, 1, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        lambda net, x: net.conv(x) * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda net, x: net.conv(x).mean(1, keepdim=True) * x,
        lambda net, x: F.batch_norm(net.conv(x), torch.zeros(3), torch.ones(3)),
        lambda net, x: F.interpolate(net.conv(x), x.shape[2:]),
    ],
)
def test_what_works_cell_by_cell_is_followed(function: object) -> None:
    made, view = followed(Calls(function), 9, 7)
    assert made.shape[-2:] == (9, 7)
    assert view is not None
    assert (view.rows, view.columns, view.dims) == (Span(1, -1, 1), Span(1, -1, 1), (-2, -1))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.conv(x).flatten(2).softmax(-1).view_as(x),
        lambda net, x: F.interpolate(net.conv(x), scale_factor=2),
        lambda net, x: net.conv(x)[:, :, 1:, 1:],
        lambda net, x: F.pixel_shuffle(net.conv(x)[:, :1].expand(1, 4, -1, -1), 2),
        lambda net, x: net.conv(x).softmax(dim=2),
        lambda net, x: net.conv(x).flip(3),
        lambda net, x: net.conv(x).roll(1, 2),
        lambda net, x: net.conv(x) @ torch.ones(7, 7),
        lambda net, x: F.linear(net.conv(x), torch.ones(7, 7)),
        lambda net, x: net.conv(x).cumsum(-1),
    ],
)
def test_what_mixes_cells_is_not_guessed_at(function: object) -> None:
    network = Calls(function)
    with torch.no_grad(), ReceptiveFieldTracer(network, 9) as tracer:
        made = network(tracer.mark(torch.randn(1, 3, 9, 7)))
    assert tracer.receptive_field(made) is None
    assert tracer.untraced


def test_channels_written_into_a_map_are_followed() -> None:
    def written(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, :2] = net.conv(net.conv(x))[:, :2]  # type: ignore[operator]
        return y.softmax(dim=1)

    _, view = followed(Calls(written), 9, 7)
    assert view is not None
    assert (view.rows, view.columns) == (Span(1, -2, 2), Span(1, -2, 2))


def test_gates_read_the_free_cells_alone() -> None:
    def gated(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.conv(x).mean((2, 3))  # type: ignore[operator, no-any-return]

    network, x = Calls(gated), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        with ReceptiveFieldTracer(network, 6, padding_free_only=True) as tracer:
            made = network(tracer.mark(x.clone()))
        expected = network.conv(x)[..., 1:5, 1:5].mean((2, 3))
    torch.testing.assert_close(made, expected)
    assert [layer for layer, *_ in tracer.reductions] == [""]


def test_pooling_to_more_than_one_cell_is_refused() -> None:
    network = Calls(lambda net, x: net.conv(x) * net.conv(x).mean(3, keepdim=True))
    with (
        pytest.raises(Inapplicable, match="to more than one cell"),
        ReceptiveFieldTracer(network, 6, padding_free_only=True) as tracer,
    ):
        network(tracer.mark(torch.randn(1, 3, 6, 6)))
