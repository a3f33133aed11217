"""Checks that the author of a component runs on it: whether it keeps the contract that its record states."""

from __future__ import annotations

from itertools import product

import torch

from posbench.components import Padding, Sides
from posbench.errors import Inapplicable

_SIDES: tuple[Sides, ...] = ((1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 0, 1), (2, 0, 1, 3), (0, 0, 0, 0))


def check_padding(padding: Padding, *, device: str = "cpu") -> None:
    """Prove that a strategy keeps its contract, on maps of several shapes, dtypes and memory layouts.

    For borders of 0 to 3 cells, even and uneven: the result has the right size, the dtype, device and memory format of
    the map, its values in the interior, and finite ones beyond; the input is left as it was; the same input gives the
    same result whatever torch's random state is, which stays undisturbed; and gradients reach the input where they are
    asked for. A strategy without a function (`pad=None`) has nothing to check.

    Raises:
        AssertionError: naming what was broken, and for which map and borders.
        Inapplicable: if the strategy refuses a map of 8×9 cells, which is larger than any of these borders.
    """
    if padding.pad is None:
        return
    layouts = (torch.contiguous_format, torch.channels_last)
    for dtype, layout, sides in product((torch.float32, torch.bfloat16, torch.float64), layouts, _SIDES):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 5, 8, 9, generator=generator).to(device, dtype).contiguous(memory_format=layout)
        _check_one(padding, x, sides, f"{padding.name}: {dtype}, {layout}, sides {sides}")
    tiny = torch.randn(1, 2, 1, 1, device=device)
    try:
        padding.pad(tiny, (1, 1, 1, 1))
    except Inapplicable:
        return  # refusing a map too small is part of the contract; any other exception is not


def _check_one(padding: Padding, x: torch.Tensor, sides: Sides, where: str) -> None:
    if padding.pad is None:
        return
    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    before, state = x.clone(), torch.random.get_rng_state()
    padded = padding.pad(x, sides)

    def expect(fact: bool, what: str) -> None:
        if not fact:
            raise AssertionError(f"{where}: {what}")

    shape = (n, channels, height + top + bottom, width + left + right)
    expect(torch.equal(x, before), "the input was changed")
    expect(padded.shape == shape, f"the result is {tuple(padded.shape)}, not {shape}")
    expect(padded.dtype == x.dtype, f"the result is {padded.dtype}")
    expect(padded.device == x.device, f"the result is on {padded.device}")
    if sides != (0, 0, 0, 0):
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        expect(padded.is_contiguous(memory_format=layout), "the memory format changed")
    inner = padded[..., top : top + height, left : left + width]
    expect(torch.equal(inner, x), "the interior was changed")
    expect(bool(padded.isfinite().all()), "some values are not finite")
    expect(torch.equal(torch.random.get_rng_state(), state), "torch's random state was disturbed")
    torch.rand(1)
    expect(torch.equal(padding.pad(x, sides), padded), "the same input gave another result")
    torch.random.set_rng_state(state)
    wanted = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(padding.pad(wanted, sides).double().sum(), wanted)
    expect(bool((gradient != 0).any()), "no gradient reaches the input")
