"""The contract check of padding strategies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import product

import torch
from torch import nn

from posbench.core.errors import Inapplicable
from posbench.network.padding import apply_padding
from posbench.network.receptive_field import ReceptiveFieldTracer
from posbench.plugin.components import Padding
from posbench.plugin.operation import Sides
from posbench.plugin.sandbox import isolated_state
from posbench.testing.assertions import expect

_SIDES: tuple[Sides, ...] = ((1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 0, 1), (2, 0, 1, 3), (0, 0, 0, 0))


def check_padding(padding: Padding, *, device: str = "cpu") -> None:
    """Raise AssertionError unless a strategy keeps its contract, on maps of several shapes, dtypes and layouts.

    A strategy with `pad` is tried with borders of 0 to 3 cells, even and uneven. The result must have the right size,
    and the dtype, device and memory format of the map. Its interior must be the map, its border finite. The input must
    not change. The same input must give the same result under any random state of torch (if the strategy is
    `stochastic`, under the same state), which must not change. Gradients must reach the input.

    A strategy with `operate` is tried with convolutions and poolings. The result must have the native result's size,
    dtype and device, and its values wherever the window does not touch padding; the rest as above. A strategy with
    neither function has nothing to check.

    Raises:
        Inapplicable: if the strategy refuses a map of 8×9 cells, which is larger than all of these borders.
    """
    if padding.operate:
        for dtype, layer in product((torch.float32, torch.float64), _layers()):
            _check_operation(padding, layer.to(device, dtype), dtype, device)
    pad = padding.pad
    if pad is None:
        return
    layouts = (torch.contiguous_format, torch.channels_last)
    for dtype, layout, sides in product((torch.float32, torch.bfloat16, torch.float64), layouts, _SIDES):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 5, 8, 9, generator=generator).to(device, dtype).contiguous(memory_format=layout)
        where = f"{padding.name}: {dtype}, {layout}, sides {sides}"
        padded = _check_function(padding, lambda x, sides=sides: pad(x, sides), x, where)  # type: ignore[misc]
        _check_pad(padded, x, sides, where)
    # The contract allows refusing a small map, but no other exception.
    with isolated_state("check"), suppress(Inapplicable):
        pad(torch.randn(1, 2, 1, 1, device=device), (1, 1, 1, 1))


def _check_pad(padded: torch.Tensor, x: torch.Tensor, sides: Sides, where: str) -> None:
    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    shape = (n, channels, height + top + bottom, width + left + right)
    expect(padded.shape == shape, where, f"the result is {tuple(padded.shape)}, not {shape}")
    expect(padded.dtype == x.dtype, where, f"the result is {padded.dtype}")
    if sides != (0, 0, 0, 0):
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        expect(padded.is_contiguous(memory_format=layout), where, "the memory format changed")
    inner = padded[..., top : top + height, left : left + width]
    expect(torch.equal(inner, x), where, "the interior was changed")


def _layers() -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            nn.Conv2d(6, 4, 3, padding=1),
            nn.Conv2d(6, 6, (5, 3), stride=2, padding=(2, 1), groups=3, bias=False),
            nn.Conv2d(6, 4, 3, dilation=2, padding=2),
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 4, 3, stride=2)),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(3, 1, 1),
        ]


def _check_operation(padding: Padding, layer: nn.Module, dtype: torch.dtype, device: str) -> None:
    where, size = f"{padding.name}: {dtype}, {layer}", 12
    x = torch.randn(2, 6, size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    network = nn.Sequential(layer).requires_grad_(False)

    def run(x: torch.Tensor) -> torch.Tensor:
        with apply_padding(padding, network):
            return network(x)  # type: ignore[no-any-return]

    output = _check_function(padding, run, x, where)
    with ReceptiveFieldTracer(network, size) as tracer:
        native = network(tracer.mark(x.clone()))
    field = tracer.receptive_field(native)
    assert field is not None, "all of these layers are traced"  # noqa: S101  not about the strategy
    expect(output.shape == native.shape, where, f"the result is {tuple(output.shape)}, not {tuple(native.shape)}")
    expect(output.dtype == native.dtype, where, f"the result is {output.dtype}")
    inner = (..., *field.padding_free(size, native.shape))
    alike = torch.allclose(output[inner], native[inner], atol=1e-5)
    expect(alike, where, "values that no padding reaches were changed")


def _check_function(
    padding: Padding, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, where: str
) -> torch.Tensor:
    """Return a function's result for a map, after the checks that pads and operations have in common."""

    def call(x: torch.Tensor) -> torch.Tensor:
        with isolated_state("check") if padding.stochastic else nullcontext():
            return function(x)

    before, state = x.clone(), torch.random.get_rng_state()
    output = call(x)
    expect(torch.equal(x, before), where, "the input was changed")
    expect(output.device == x.device, where, f"the result is on {output.device}")
    expect(bool(output.isfinite().all()), where, "some values are not finite")
    expect(torch.equal(torch.random.get_rng_state(), state), where, "torch's random state was disturbed")
    torch.rand(1)
    expect(torch.equal(call(x), output), where, "the same input gave another result")
    torch.random.set_rng_state(state)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(call(leaf).double().sum(), leaf)
    expect(bool((gradient != 0).any()), where, "no gradient reaches the input")
    return output
