"""The built-in strategies by hand and against NumPy's padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posbench.core.errors import Inapplicable
from posbench.plugin.components import Padding
from posbench.plugin.operation import Sides
from posbench.plugin.registry import load_registry
from posbench.testing import check_padding

PADDINGS = [entry.component for entry in load_registry().entries("padding")]
NUMPY = {"circular": "wrap", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge"}


def pad(name: str, x: torch.Tensor, sides: Sides) -> torch.Tensor:
    function = load_registry().get(Padding, name).pad
    assert function is not None
    return function(x, sides)


def row(name: str, values: list[float], before: int, after: int) -> list[float]:
    return pad(name, torch.tensor(values)[None, None, None], (before, after, 0, 0)).flatten().tolist()


@pytest.mark.parametrize("padding", PADDINGS, ids=lambda padding: padding.name)
def test_every_strategy_keeps_its_contract(padding: Padding) -> None:
    check_padding(padding)


def test_a_row_padded_by_hand() -> None:
    values = [1.0, 2.0, 4.0]
    assert row("circular", values, 2, 1) == [2, 4, 1, 2, 4, 1]
    assert row("reflect", values, 2, 1) == [4, 2, 1, 2, 4, 2]
    assert row("symmetric", values, 2, 1) == [2, 1, 1, 2, 4, 4]
    assert row("replicate", values, 2, 1) == [1, 1, 1, 2, 4, 4]
    assert row("extrapolate", values, 2, 2) == [-1, 0, 1, 2, 4, 6, 8]
    assert row("mean", [1.0, 2.0, 6.0], 1, 1) == [3, 1, 2, 6, 3]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(NUMPY)), st.tuples(*[st.integers(0, 3)] * 4), st.integers(4, 7), st.integers(4, 7))
def test_numpy_pads_alike(name: str, sides: Sides, height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    left, right, top, bottom = sides
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode=NUMPY[name])  # type: ignore[call-overload]
    assert np.array_equal(pad(name, x, sides).numpy(), expected)


def test_extrapolated_corners_continue_a_plane() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    plane = (2 * y - 3 * x + 1)[None, None]
    y, x = torch.meshgrid(torch.arange(-2.0, 6), torch.arange(-1.0, 8), indexing="ij")
    assert torch.equal(pad("extrapolate", plane, (1, 3, 2, 2)), (2 * y - 3 * x + 1)[None, None])


def test_random_cells_have_their_channels_mean_and_spread() -> None:
    scale, offset = torch.tensor([1.0, 5.0])[:, None, None], torch.tensor([10.0, -3.0])[:, None, None]
    generator = torch.Generator().manual_seed(7)  # another than that of the noise
    x = torch.randn(64, 2, 8, 8, generator=generator) * scale + offset
    padded = pad("random", x, (3, 3, 3, 3))
    frame = torch.ones(14, 14, dtype=torch.bool)
    frame[3:11, 3:11] = False
    cells = padded[:, :, frame]  # [64, 2, 132]
    standard = (cells - x.mean((2, 3))[..., None]) / x.std((2, 3), correction=0)[..., None]
    # Over 64 × 132 cells the mean has a standard error of .011, the spread one of .008.
    assert standard.mean((0, 2)).tolist() == pytest.approx([0, 0], abs=0.044)
    assert standard.std((0, 2)).tolist() == pytest.approx([1, 1], abs=0.032)


@pytest.mark.parametrize(
    ("name", "sides"), [("circular", (3, 0, 0, 0)), ("reflect", (0, 2, 0, 0)), ("symmetric", (0, 0, 3, 0))]
)
def test_a_map_too_small_is_refused(name: str, sides: Sides) -> None:
    with pytest.raises(Inapplicable, match="larger map than 2×2"):
        pad(name, torch.zeros(1, 1, 2, 2), sides)


def test_a_strategy_that_breaks_its_contract_is_told_apart() -> None:
    def shifted(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        left, right, top, bottom = sides
        return torch.nn.functional.pad(x, (left + right, 0, top + bottom, 0))

    def forgetful(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        return torch.nn.functional.pad(x.float(), sides)

    def noisy(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        return torch.nn.functional.pad(x, sides, value=float(torch.rand(1)))

    for function, complaint in ((shifted, "interior"), (forgetful, "float32"), (noisy, "random state")):
        with pytest.raises(AssertionError, match=complaint):
            check_padding(Padding(name="broken", summary="", version="1", pad=function))
