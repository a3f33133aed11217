from importlib.metadata import entry_points

import numpy as np
import posbench_antireflect
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posbench_antireflect import pad

from posbench import Inapplicable


@st.composite
def maps_and_sides(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int, int, int]]:
    """A map of whole numbers, on which no addition rounds, and sides by which it can be continued."""
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    left, right = draw(st.integers(0, width - 1)), draw(st.integers(0, width - 1))
    top, bottom = draw(st.integers(0, height - 1)), draw(st.integers(0, height - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = torch.from_numpy(rng.integers(-99, 100, (n, c, height, width))).double()
    return x, (left, right, top, bottom)


def test_entry_point() -> None:
    (point,) = entry_points(group="posbench", name="antireflect")
    assert point.dist is not None
    assert point.dist.name == "posbench-antireflect"
    assert "position-bench" in (point.dist.requires or [])
    assert point.load() is posbench_antireflect


def test_record() -> None:
    (padding,) = posbench_antireflect.posbench_paddings()
    assert (padding.name, padding.version, padding.pad) == ("antireflect", "1", pad)


def test_row_by_hand() -> None:
    row = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
    # left: 2·1 − 4, 2·1 − 2; right: 2·4 − 2
    assert pad(row, (2, 1, 0, 0)).flatten().tolist() == [-2, 0, 1, 2, 4, 6]


def test_column_by_hand() -> None:
    column = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    # top: 2·1 − 2; bottom: 2·4 − 2, 2·4 − 1
    assert pad(column, (0, 0, 1, 2)).flatten().tolist() == [0, 1, 2, 4, 6, 7]


def test_corner_by_hand() -> None:
    square = torch.tensor([[1.0, 2.0], [3.0, 5.0]])[None, None]
    # Above 1, 2 comes 2·1 − 3, 2·2 − 5 = −1, −1; then each row grows to the left by 2·first − second.
    assert pad(square, (1, 0, 1, 0))[0, 0].tolist() == [[-1, -1, -1], [0, 1, 2], [1, 3, 5]]


@given(maps_and_sides())
def test_equals_numpy(case: tuple[torch.Tensor, tuple[int, int, int, int]]) -> None:
    x, sides = case
    left, right, top, bottom = sides
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect", reflect_type="odd")
    np.testing.assert_array_equal(pad(x, sides).numpy(), expected)


@given(maps_and_sides())
def test_order_of_axes_does_not_matter(case: tuple[torch.Tensor, tuple[int, int, int, int]]) -> None:
    x, (left, right, top, bottom) = case
    assert torch.equal(pad(x, (left, right, top, bottom)), pad(x.mT, (top, bottom, left, right)).mT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sides", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1), (3, 0, 0, 2)])
@pytest.mark.parametrize("n", [1, 2])
def test_keeps_interior_dtype_and_memory_format(
    n: int, sides: tuple[int, int, int, int], memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    x = torch.randn(n, 3, 5, 6, dtype=dtype).to(memory_format=memory_format)
    before = x.clone()
    padded = pad(x, sides)
    left, _, top, _ = sides
    assert torch.equal(padded[..., top : top + 5, left : left + 6], before)
    assert torch.equal(x, before)
    assert padded.dtype == dtype
    assert padded.is_contiguous(memory_format=memory_format)


def test_keeps_device() -> None:
    padded = pad(torch.empty(1, 3, 5, 6, device="meta"), (1, 2, 3, 4))
    assert padded.device.type == "meta"
    assert padded.shape == (1, 3, 12, 9)


def test_gradients_reach_the_map() -> None:
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pad(x, (2, 1, 0, 2)), x)


@pytest.mark.parametrize("sides", [(3, 0, 0, 0), (0, 4, 0, 0), (0, 0, 2, 0), (0, 0, 0, 9)])
def test_map_too_small(sides: tuple[int, int, int, int]) -> None:
    with pytest.raises(Inapplicable, match=r"^antireflect cannot add \d cells to \d: at most \d$"):
        pad(torch.zeros(1, 1, 2, 3), sides)
