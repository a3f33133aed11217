"""Metrics against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posbench.builtin.metrics.scores import mae, r2, ranks, spc
from posbench.plugin.components import Metric
from posbench.plugin.registry import load_registry

TARGET = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
#: Few values, so that ties are the rule.
few = st.integers(-2, 2)
maps = st.integers(2, 4).flatmap(
    lambda side: st.tuples(
        st.lists(st.lists(few, min_size=side**2, max_size=side**2), min_size=1, max_size=4),
        st.lists(few, min_size=side**2, max_size=side**2),
        st.just(side),
    )
)


@given(maps)
def test_rank_correlation_is_scipys_with_ties_and_0_for_constants(
    case: tuple[list[list[int]], list[int], int],
) -> None:
    predictions, target, side = case
    got = spc(torch.tensor(predictions).double().view(-1, side, side), torch.tensor(target).double().view(side, side))
    for value, prediction in zip(got.tolist(), predictions, strict=True):
        if len(set(prediction)) == 1 or len(set(target)) == 1:
            assert value == 0
        else:
            assert value == pytest.approx(stats.spearmanr(prediction, target).statistic, abs=1e-12)


@given(st.lists(st.lists(few, min_size=6, max_size=6), min_size=1, max_size=3))
def test_ranks_are_scipys(rows: list[list[int]]) -> None:
    assert ranks(torch.tensor(rows).double()).tolist() == stats.rankdata(rows, axis=1).tolist()


def test_rank_correlation_by_hand() -> None:
    predictions = torch.tensor(
        [
            [[0.0, 1.0], [2.0, 3.0]],
            [[9.0, 3.0], [2.0, -7.0]],
            [[1.0, 0.0], [3.0, 2.0]],  # rank differences 1, 1, 1, 1: 1 − 6·4/(4·15) = .6
            [[5.0, 5.0], [6.0, 6.0]],  # ranks 1.5, 1.5, 3.5, 3.5: (1.5+.5+.5+1.5)/√(4·5)
            [[4.0, 4.0], [4.0, 4.0]],
        ],
        dtype=torch.float64,
    )
    assert spc(predictions, TARGET).tolist() == pytest.approx([1, -1, 0.6, 4 / 20**0.5, 0])


@given(st.integers(0, 2**32 - 1))
def test_rank_correlation_does_not_see_an_increasing_distortion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, target = (torch.from_numpy(rng.normal(size=(1, 5, 5))) for _ in range(2))
    assert torch.equal(spc(prediction, target[0]), spc(prediction.exp(), target[0]))


def test_rank_correlation_of_a_cropped_view_is_that_of_its_copy() -> None:
    wide = torch.randn(3, 8, 8, dtype=torch.float64)
    view, target = wide[:, 1:6, 2:7].mT, wide[0, 1:6, 2:7].mT
    assert torch.equal(spc(view, target), spc(view.contiguous(), target.contiguous()))
    assert float(spc(view, target)[0]) == pytest.approx(1)


def test_absolute_error_by_hand() -> None:
    predictions = torch.stack([TARGET, TARGET + 0.25, torch.zeros(2, 2).double()])
    assert mae(predictions, TARGET).tolist() == [0, 0.25, 1.5]


def test_skill_by_hand() -> None:
    # The target's mean is 1.5, its squared deviations 2.25 + .25 + .25 + 2.25 = 5; of zeros 0 + 1 + 4 + 9 = 14.
    predictions = torch.stack([TARGET, torch.full((2, 2), 1.5).double(), torch.zeros(2, 2).double()])
    assert r2(predictions, TARGET).tolist() == pytest.approx([1, 0, 1 - 14 / 5])


def test_a_constant_target_leaves_no_skill() -> None:
    target = torch.full((3, 3), 0.1, dtype=torch.float64)
    predictions = torch.stack([target, torch.rand(3, 3).double()])
    assert r2(predictions, target).tolist() == [0, 0]
    assert spc(predictions, target).tolist() == [0, 0]


def test_what_they_are_called_and_which_way_is_up() -> None:
    registry = load_registry()
    offered = {name: registry.get(Metric, name) for name in ("spc", "mae", "r2")}
    assert {name: record.higher_is_better for name, record in offered.items()} == {
        "spc": True,
        "mae": False,
        "r2": True,
    }
    assert [offered[name].score for name in ("spc", "mae", "r2")] == [spc, mae, r2]


@given(st.integers(0, 2**32 - 1))
def test_each_image_is_scored_on_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, target = torch.from_numpy(rng.normal(size=(4, 6, 6))), torch.from_numpy(rng.normal(size=(6, 6)))
    for function in (spc, mae, r2):
        together = function(predictions, target)
        assert together.dtype == torch.float64
        assert together.tolist() == pytest.approx([float(function(p[None], target)) for p in predictions], abs=1e-12)
