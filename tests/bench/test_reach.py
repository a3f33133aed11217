"""Reach: the oracle against its closed form, by hand, and the published tables read in pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from posbench.bench.reach import ceiling, curve, reach
from posbench.builtin import targets
from posbench.report.literature import published
from tests.rows import make_row

H, G, HS = (draw(256) for draw in (targets.horizontal, targets.gaussian, targets.horizontal_stripes))


@pytest.mark.parametrize(("distance", "spc"), [(8, 0.45), (16, 0.61), (32, 0.80), (64, 0.96)])
def test_a_gradient_has_a_closed_form(distance: float, spc: float) -> None:
    exact = (1 - (1 - 2 * distance / 224) ** 3) ** 0.5
    assert exact == pytest.approx(spc, abs=0.01)
    assert reach(H, exact, 224) == pytest.approx(distance, abs=0.2)
    assert reach(H.T, exact, 448) == pytest.approx(2 * distance, abs=0.4)


def test_a_small_pattern_by_hand() -> None:
    """An oracle that knows one cell from the border draws 0, 1½, 1½, 3 for the four columns 0, 1, 2, 3."""
    columns = np.tile(np.arange(4.0), (4, 1))
    distances, attained = curve(columns, 8) or pytest.fail("no curve")
    assert distances.tolist() == [0, 2, 4]
    middle = spearmanr([0, 1.5, 1.5, 3], [0, 1, 2, 3]).statistic
    assert attained.tolist() == pytest.approx([0, middle, 1])
    assert reach(columns, middle / 2, 8) == pytest.approx(1)


@pytest.mark.parametrize("pattern", [H, G])
def test_the_oracle_knows_nothing_at_the_border_and_everything_at_half(pattern: np.ndarray) -> None:
    distances, attained = curve(pattern, 224) or pytest.fail("no curve")
    assert (distances[0], distances[-1]) == (0, ceiling(224)) == (0, 112)
    assert (attained[0], attained[-1]) == pytest.approx((0, 1))
    assert (np.diff(attained) >= 0).all()
    assert reach(pattern, -0.3, 224) == 0
    assert reach(pattern, 1.0, 224) == pytest.approx(112)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_more_correlation_never_reaches_less(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert (reach(G, low, 224) or 0) <= (reach(G, high, 224) or 0)


def test_what_the_oracle_attains_reaches_as_far_as_it_knows() -> None:
    distances, attained = curve(G, 224) or pytest.fail("no curve")
    rising = np.flatnonzero(np.diff(attained, prepend=-1) > 1e-9)
    for i in rising:
        assert reach(G, float(attained[i]), 224) == pytest.approx(distances[i])


@pytest.mark.parametrize("pattern", [np.ones((16, 16)), HS])
def test_what_knowing_more_does_not_draw_better_has_no_reach(pattern: np.ndarray) -> None:
    assert curve(pattern, 224) is None
    assert reach(pattern, 0.5, 224) is None


def printed(table: str, backbone: str, target: str, taps: str = "all") -> float:
    return published(table).find(make_row(backbone=backbone, target=target, taps=taps))["spc"]


def test_the_published_tables_in_pixels() -> None:
    def pixels(pattern: np.ndarray, spc: float) -> float:
        distance = reach(pattern, spc, 224)
        assert distance is not None
        return distance

    table = "islam2020-table1"
    of_vgg16 = [pixels(pattern, printed(table, "vgg16", name)) for pattern, name in ((H, "H"), (G, "G"))]
    assert of_vgg16 == pytest.approx([26, 25], abs=0.5)
    of_resnet = [pixels(pattern, printed(table, "resnet152", name)) for pattern, name in ((H, "H"), (H.T, "V"))]
    assert of_resnet == pytest.approx([55, 61], abs=0.5)
    taps = [pixels(H, printed("islam2020-table3", "vgg16", "H", str(tap))) for tap in range(1, 6)]
    assert taps == sorted(taps)
    assert (taps[0], taps[-1]) == pytest.approx((1, 20), abs=1)
