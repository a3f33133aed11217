import math
from importlib.metadata import entry_points

import posbench_pearson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posbench_pearson import pearson
from scipy import stats


def maps(seed: int, n: int = 4, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Random predictions [n, side, side + 1] and a target that they partly agree with, float64."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(side, side + 1, dtype=torch.float64, generator=generator)
    noise = torch.rand(n, side, side + 1, dtype=torch.float64, generator=generator)
    return target + noise, target


def test_entry_point() -> None:
    (point,) = entry_points(group="posbench", name="pearson")
    assert point.dist is not None
    assert point.dist.name == "posbench-pearson"
    assert "position-bench" in (point.dist.requires or [])
    assert point.load() is posbench_pearson


def test_record() -> None:
    (metric,) = posbench_pearson.posbench_metrics()
    assert (metric.name, metric.version, metric.score, metric.higher_is_better) == ("pearson", "1", pearson, True)


def test_by_hand() -> None:
    target = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    predictions = torch.tensor(
        [
            [[5.0, 7.0], [9.0, 11.0]],  # 5 + 2·target
            [[0.0, -1.0], [-2.0, -3.0]],  # −target
            [[1.0, 0.0], [0.0, 1.0]],  # symmetric about the target's middle
            [[0.0, 0.0], [0.0, 4.0]],  # deviations −1, −1, −1, 3 against −1.5, −.5, .5, 1.5: 6 / √(12 · 5)
        ],
        dtype=torch.float64,
    )
    expected = torch.tensor([1, -1, 0, 6 / math.sqrt(60)], dtype=torch.float64)
    torch.testing.assert_close(pearson(predictions, target), expected, rtol=0, atol=1e-15)


@given(seed=st.integers(0, 2**32 - 1))
def test_equals_scipy(seed: int) -> None:
    predictions, target = maps(seed)
    expected = [stats.pearsonr(p.flatten().numpy(), target.flatten().numpy()).statistic for p in predictions]
    assert pearson(predictions, target).tolist() == pytest.approx(expected, abs=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_positive_affine_maps_change_nothing(seed: int, scale: float, offset: float) -> None:
    predictions, target = maps(seed)
    scores = pearson(predictions, target)
    torch.testing.assert_close(pearson(scale * predictions + offset, target), scores, rtol=0, atol=1e-7)
    torch.testing.assert_close(pearson(predictions, scale * target + offset), scores, rtol=0, atol=1e-7)
    torch.testing.assert_close(pearson(-scale * predictions + offset, target), -scores, rtol=0, atol=1e-7)


@given(value=st.floats(-1e6, 1e6), side=st.integers(1, 30))
def test_constant_scores_zero(value: float, side: int) -> None:
    # Many such constants do not equal their computed mean, 0.1 among them.
    constant = torch.full((side, side), value, dtype=torch.float64)
    other = torch.arange(side * side, dtype=torch.float64).reshape(side, side)
    assert pearson(torch.stack([constant, constant]), other).tolist() == [0, 0]
    assert pearson(torch.stack([other, constant]), constant).tolist() == [0, 0]


def test_a_constant_prediction_leaves_the_others_alone() -> None:
    predictions, target = maps(0)
    expected = pearson(predictions, target)
    predictions[1] = 0.1
    expected[1] = 0
    assert torch.equal(pearson(predictions, target), expected)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales(scale: float) -> None:
    predictions, target = maps(1)
    torch.testing.assert_close(pearson(scale * predictions, target), pearson(predictions, target), rtol=0, atol=1e-12)


def test_never_beyond_one() -> None:
    predictions, _ = maps(2, n=200)
    scores = torch.cat([pearson(torch.stack([p, -p]), p) for p in predictions])
    assert scores.abs().max() <= 1
    assert scores.dtype == torch.float64
