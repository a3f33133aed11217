"""Scores over photographs: means, intervals, flat predictions, scored regions, examples, and broken metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posbench.bench.plan import Cell, Job
from posbench.bench.records import Score
from posbench.bench.scoring import (
    EXAMPLES,
    THUMBNAIL_SIDE,
    examples,
    flatten_degenerate,
    scored_region,
    summarised,
    values,
)
from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.builtin.metrics.scores import spc
from posbench.core.errors import PosbenchError
from posbench.core.statistics import interval
from posbench.data.crops import Crops
from posbench.plugin.components import Metric, Target
from posbench.plugin.control import Check
from posbench.plugin.resampling import resize
from tests.factories import plan, readout

H, G = (
    pattern(Target(name="t", summary="", version="1", draw=draw)) for draw in (targets.horizontal, targets.gaussian)
)
TARGET = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)


def metric(function: Any, name: str = "made") -> Metric:
    return Metric(name=name, summary="", version="1", score=function)


def score(scored_by: Metric, predictions: torch.Tensor, target: torch.Tensor, photographs: list[str]) -> Score:
    return summarised(scored_by, values(scored_by, predictions, target), photographs)


def corner(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A score that can be read off: the first cell."""
    return predictions[:, 0, 0]


def maps(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None].expand(-1, 2, 2)


def test_photographs_count_alike_however_many_crops_they_gave() -> None:
    got = score(metric(corner), maps(1, 2, 3, 10), TARGET, ["b", "b", "b", "a"])
    assert got.by_photograph == {"b": 2, "a": 10}
    assert got.value == 6
    # Two values, 2 and 10: standard error 4, and t(1, .975) = 12.7062.
    assert got.hi == pytest.approx(6 + 4 * 12.706204736)
    assert got.lo == pytest.approx(6 - 4 * 12.706204736)


def test_one_photograph_has_no_interval() -> None:
    got = score(metric(corner), maps(1, 3), TARGET, ["a", "a"])
    assert (got.value, got.lo, got.hi) == (2, None, None)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_the_interval_is_students(values: list[float]) -> None:
    mean, lo, hi = interval(values)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert (mean, lo, hi) == pytest.approx((np.mean(values), np.mean(values) - half, np.mean(values) + half), abs=1e-9)


@pytest.mark.parametrize("photographs", [3, 7, 30])
def test_the_interval_covers_the_truth_as_often_as_it_says(photographs: int) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for drawn in rng.normal(0.3, 0.2, (4000, photographs)):
        _, lo, hi = interval(drawn.tolist())
        assert lo is not None
        assert hi is not None
        hits += lo <= 0.3 <= hi
    # A standard error of .0034 at 4000 draws.
    assert hits / 4000 == pytest.approx(0.95, abs=0.014)


def test_flat_predictions_are_counted_and_score_zero() -> None:
    rounding = 0.5 + 1e-6 * torch.arange(4.0).view(2, 2)
    predictions = torch.stack([rounding, TARGET.float(), -TARGET.float(), torch.zeros(2, 2)])
    assert float(spc(rounding[None].double(), TARGET)) == 1  # as it would score, were it taken at its word
    flattened, share = flatten_degenerate(predictions, TARGET)
    assert share == 0.5
    assert flattened.dtype == torch.float64
    assert torch.equal(flattened[1:3], predictions[1:3].double())
    assert flattened[0].min() == flattened[0].max() == pytest.approx(0.5 + 1.5e-6, abs=1e-7)
    assert spc(flattened, TARGET).tolist() == [0, 1, -1, 0]


def test_what_is_flat_is_told_by_the_targets_range() -> None:
    predictions = 1e-3 * TARGET[None].float()
    assert flatten_degenerate(predictions, TARGET)[1] == 0
    assert flatten_degenerate(predictions, 100 * TARGET)[1] == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_predictions_that_are_not_finite_are_an_error(value: float) -> None:
    predictions = torch.zeros(3, 2, 2)
    predictions[2, 0, 1] = value
    with pytest.raises(PosbenchError, match="not finite"):
        flatten_degenerate(predictions, TARGET)


@pytest.mark.parametrize(
    "function",
    [
        lambda p, t: p.mean(),
        lambda p, t: p[:, 0],
        lambda p, t: p[:1, 0, 0],
        lambda p, t: p[:, 0, 0].tolist(),
        lambda p, t: float(p.mean()),
        lambda p, t: None,
        lambda p, t: torch.full((len(p),), torch.nan),
        lambda p, t: torch.full((len(p),), -torch.inf),
    ],
)
def test_a_metric_that_breaks_its_promise_is_named(function: Any) -> None:
    with pytest.raises(PosbenchError, match="metric 'broken' must return one finite score an image, 3 of them"):
        score(metric(function, "broken"), maps(1, 2, 3), TARGET, ["a", "b", "c"])


def test_a_metric_that_writes_into_its_input_does_no_harm() -> None:
    def greedy(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        first = predictions[:, 0, 0].clone()
        predictions.zero_()
        target.zero_()
        return first

    predictions, target = maps(1, 2).clone(), TARGET.clone()
    one = score(metric(greedy), predictions, target, ["a", "b"])
    two = score(metric(greedy), predictions, target, ["a", "b"])
    assert one == two
    assert torch.equal(predictions, maps(1, 2))
    assert torch.equal(target, TARGET)


def test_metrics_see_float64() -> None:
    def typed(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert predictions.dtype == target.dtype == torch.float64
        return predictions[:, 0, 0]

    flattened, _ = flatten_degenerate(torch.rand(2, 2, 2), TARGET.float())
    score(metric(typed), flattened, TARGET.float(), ["a", "b"])


def checking(name: str = "check", job: Job | None = None, **changes: Any) -> Cell:
    """A cell of 10 by 10 maps with the changes of a check."""
    plain = plan(readouts=[replace(readout(), grid=lambda side: side - 2)], image_size=96).cells[0]
    return replace(plain, job=job or plain.job, check=Check(name=name, **changes))


def test_only_held_out_cells_are_scored() -> None:
    maps = torch.arange(100.0).view(1, 10, 10).expand(3, -1, -1)
    columns, target = scored_region(checking(held_out="columns"), maps, H)
    assert torch.equal(columns, maps[:, :, 1::2])
    assert torch.equal(target, resize(H, 10)[:, 1::2])
    quadrant, target = scored_region(checking(held_out="quadrant"), maps, G)
    assert torch.equal(quadrant, maps[:, 5:, 5:])
    assert torch.equal(target, resize(G, 10)[5:, 5:])


def test_a_larger_image_is_scored_at_its_border_or_at_its_pixels() -> None:
    larger = replace(checking().job, test_size=128)  # a grid of 16, maps of 14
    maps = torch.rand(2, 14, 14)
    border, target = scored_region(checking(job=larger), maps, G)
    assert torch.equal(border, maps)
    assert torch.equal(target, resize(G, 14))
    pixel, target = scored_region(checking(job=larger, crop=True), maps, G)
    assert torch.equal(pixel, maps[:, :10, :10])
    assert torch.equal(target, resize(G, 10))


def test_the_first_image_of_each_of_the_first_photographs() -> None:
    rng = np.random.default_rng(0)
    names = ("b", "a", "b", "c", "d", "a")
    pixels = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    predictions = torch.from_numpy(rng.normal(size=(6, 4, 4)).astype(np.float32))
    kept = examples(Crops(pixels, names), predictions)
    assert [example.photograph for example in kept] == ["b", "a", "c"]
    assert len(kept) == EXAMPLES
    for example, number in zip(kept, (0, 1, 3), strict=True):
        assert example.thumbnail == pixels[number].tobytes()  # a small image is not enlarged
        np.testing.assert_allclose(np.frombuffer(example.drawn, "<f2").reshape(4, 4), predictions[number], rtol=1e-3)


def test_a_large_image_is_made_small_and_a_large_value_is_cut_off() -> None:
    pixels = np.empty((1, 224, 224, 3), np.uint8)
    pixels[:, :, :112], pixels[:, :, 112:] = (10, 20, 30), (200, 100, 0)
    (example,) = examples(Crops(pixels, ("a",)), torch.tensor([[[1e9, -1e9], [0, 1]]]))
    small = np.frombuffer(example.thumbnail, np.uint8).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    assert small[5, 5].tolist() == [10, 20, 30]
    assert small[5, -5].tolist() == [200, 100, 0]
    assert np.frombuffer(example.drawn, "<f2").tolist() == [65504, -65504, 0, 1]
