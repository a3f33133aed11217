"""Targets by hand at 4×4, and their resizing."""

from __future__ import annotations

import numpy as np
import pytest

from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.plugin.components import Target
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize


def test_gradients_at_four_pixels() -> None:
    row = [0, 1 / 3, 2 / 3, 1]
    assert targets.horizontal(4) == pytest.approx(np.array([row] * 4))
    assert targets.vertical(4) == pytest.approx(np.array([row] * 4).T)


def test_gaussian_at_four_pixels() -> None:
    # Centre (2, 2), sigma 2: exp(-r²/8), r² from 0 at the centre to 8 in the first corner, scaled to [0, 1].
    low, span = np.exp(-1), 1 - np.exp(-1)
    expected = [[(np.exp(-((y - 2) ** 2 + (x - 2) ** 2) / 8) - low) / span for x in range(4)] for y in range(4)]
    drawn = targets.gaussian(4)
    assert drawn == pytest.approx(np.array(expected))
    assert drawn[0, 0] == 0
    assert drawn[2, 2] == 1


def test_stripes_at_four_pixels() -> None:
    # 2.5 periods over 4 rows: phases 2π·2.5·(y+½)/4 = 5π/8 · (2y+1)/... worked out row by row.
    phases = [2 * np.pi * 2.5 * (y + 0.5) / 4 for y in range(4)]
    column = [0.5 * (1 + np.cos(phase)) for phase in phases]
    assert targets.horizontal_stripes(4) == pytest.approx(np.array([[value] * 4 for value in column]))
    assert targets.vertical_stripes(4) == pytest.approx(targets.horizontal_stripes(4).T)
    # cos(5π/8) = -cos(3π/8) = -0.38268343
    assert targets.horizontal_stripes(4)[0, 0] == pytest.approx(0.30865828)


def test_the_best_constant_scores_what_the_paper_prints_for_no_network() -> None:
    # Table 1: a constant prediction of H has a mean absolute error of .251; of stripes on [-1, 1] .628.
    h, hs = targets.horizontal(256), targets.horizontal_stripes(256)
    assert np.abs(h - np.median(h)).mean() == pytest.approx(0.251, abs=5e-4)
    assert np.abs(2 * hs - 1 - np.median(2 * hs - 1)).mean() == pytest.approx(0.628, abs=10e-3)


@pytest.mark.parametrize("name", ["H", "V", "G", "HS", "VS"])
def test_every_target_is_resized_to_the_grid_without_aligned_corners(name: str) -> None:
    target = load_registry().get(Target, name)
    drawn, full = resize(pattern(target), 26).double().numpy(), np.asarray(target.draw(256))
    # Plain bilinear interpolation at pixel centres: output i reads at (i + ½)·256/26 − ½.
    at = (np.arange(26) + 0.5) * 256 / 26 - 0.5
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, 255), at - low
    rows = full[low] * (1 - part)[:, None] + full[high] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, high] * part
    assert drawn == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["HS", "VS"])
def test_signed_stripes_are_on_the_scale_of_the_published_errors(name: str) -> None:
    registry = load_registry()
    plain, signed = (registry.get(Target, n).draw(256) for n in (name, f"{name}-signed"))
    assert np.allclose(signed, 2 * plain - 1)
    # Islam, Jia & Bruce, Table 1: the best constant's error, which the readout without a network makes, is .628.
    assert abs(np.abs(signed - signed.mean()).mean() - 0.628) < 0.01
