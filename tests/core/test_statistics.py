"""Intervals and tests against scipy, hand-enumerated flips and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posbench.core.statistics import (
    DRAWN_FLIPS,
    MAX_ENUMERATED,
    MIN_PHOTOGRAPHS_FOR_P,
    MeanEstimate,
    holm,
    interval,
    paired_difference,
    sign_flip,
    significantly_different,
    welch_difference,
)

SOME = [0.31, 0.12, -0.2, 0.55, 0.4, 0.27, 0.08, 0.61]
scores = st.lists(st.floats(-1, 1), min_size=2, max_size=20)


def named(values: list[float]) -> dict[str, float]:
    return {f"photograph-{i}": value for i, value in enumerate(values)}


def test_an_interval_is_students() -> None:
    mean, lo, hi = interval(SOME)
    theirs = stats.ttest_1samp(SOME, 0).confidence_interval(0.95)
    assert (mean, lo, hi) == pytest.approx((np.mean(SOME), theirs.low, theirs.high))
    wide = stats.ttest_1samp(SOME, 0).confidence_interval(0.99)
    assert interval(SOME, 0.99)[1:] == pytest.approx((wide.low, wide.high))
    assert interval([0.5]) == (0.5, None, None)


def test_a_paired_difference_is_over_the_photographs_that_both_have() -> None:
    a, b = named(SOME), named([value / 2 for value in SOME[::-1]])
    difference = paired_difference({"only here": 1.0} | a, b | {"only there": -1.0})
    theirs = stats.ttest_rel(list(a.values()), list(b.values()))
    limits = theirs.confidence_interval(0.95)
    assert difference is not None
    assert (difference.lo, difference.hi, difference.n, difference.p) == pytest.approx(
        (limits.low, limits.high, 8, None)
    )
    assert paired_difference(a, {"another": 1.0}) is None
    single = paired_difference({"same": 0.75}, {"same": 0.5})
    assert single is not None
    assert (single.value, single.lo, single.hi, single.p, single.n) == (0.25, None, None, None, 1)


def test_twelve_differences_of_one_sign_have_two_of_4096_flips_as_far() -> None:
    difference = paired_difference(named([1.0] * 12), named([0.5 + i / 100 for i in range(12)]))
    assert difference is not None
    assert difference.p == 2 / 4096
    without = paired_difference(named([1.0] * (MIN_PHOTOGRAPHS_FOR_P - 1)), named([0.0] * (MIN_PHOTOGRAPHS_FOR_P - 1)))
    assert without is not None
    assert without.p is None


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=8))
def test_all_flips_are_those_of_scipy(values: list[int]) -> None:
    differences = np.array(values, np.float64)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    # scipy doubles the smaller tail; the null distribution is symmetric, so the two agree.
    assert sign_flip(differences) == pytest.approx(min(1.0, theirs.pvalue))


def test_drawn_flips_come_near_the_normal_one() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.3, 1, 40)
    assert len(differences) > MAX_ENUMERATED
    p = sign_flip(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.15)
    assert sign_flip(np.ones(40)) == pytest.approx(1 / (DRAWN_FLIPS + 1), abs=2 / DRAWN_FLIPS)
    assert sign_flip(np.zeros(40)) == 1


@given(scores)
def test_exchanging_the_sides_changes_the_sign_alone(values: list[float]) -> None:
    a, b = named(values), named(values[::-1])
    first, second = paired_difference(a, b), paired_difference(b, a)
    assert first is not None
    assert second is not None
    assert first.value == pytest.approx(-second.value, abs=1e-12)
    assert first.lo == pytest.approx(-second.hi if second.hi is not None else None, abs=1e-12)
    assert first.p == second.p


def mean_of(values: list[float]) -> MeanEstimate:
    return MeanEstimate(*interval(values), len(values))


def test_published_means_are_held_against_each_other_as_welch_does() -> None:
    other = [0.9, 0.7, 0.85, 0.2, 0.66]
    difference = welch_difference(mean_of(SOME), mean_of(other))
    limits = stats.ttest_ind(SOME, other, equal_var=False).confidence_interval(0.95)
    assert (difference.lo, difference.hi) == pytest.approx((limits.low, limits.high))
    assert (difference.p, difference.n) == (None, None)
    without = welch_difference(MeanEstimate(0.5, None, None, 1), mean_of(other))
    assert (without.lo, without.hi) == (None, None)
    flat = welch_difference(MeanEstimate(0.5, 0.5, 0.5, 4), MeanEstimate(0.25, 0.25, 0.25, 4))
    assert (flat.value, flat.lo, flat.hi) == (0.25, 0.25, 0.25)


def test_a_mean_knows_how_likely_it_is_below() -> None:
    assert mean_of(SOME).p_above(0.1) == pytest.approx(stats.ttest_1samp(SOME, 0.1, alternative="greater").pvalue)
    assert mean_of(SOME).standard_error == pytest.approx(stats.sem(SOME))
    assert MeanEstimate(0.9, None, None, 1).p_above(0) == 1
    assert MeanEstimate(0.9, 0.9, 0.9, 5).p_above(0) == 0
    assert MeanEstimate(0.9, 0.9, 0.9, 5).p_above(0.9) == 1


def test_holm_by_hand() -> None:
    """The smallest of three p-values is tripled, the next doubled, the last kept; each is at least its predecessor."""
    assert holm([0.04, None, 0.01, 0.03]) == pytest.approx([0.06, None, 0.03, 0.06])
    assert holm([]) == []
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_none_and_bonferroni(ps: list[float]) -> None:
    for p, adjusted in zip(ps, holm(ps), strict=True):
        assert adjusted is not None
        assert p <= adjusted <= min(1.0, len(ps) * p) + 1e-15


def test_more_comparisons_tell_less_apart() -> None:
    a, b = named([value + 0.2 for value in SOME]), named([value * math.cos(i) for i, value in enumerate(SOME)])
    different = [significantly_different(a, b, comparisons) for comparisons in (1, 10**6)]
    assert different == [True, False]
    assert not significantly_different(a, {}, 1)
    assert not significantly_different(a, a, 1)


def test_cross_fitted_photographs_have_wider_intervals() -> None:
    values = [0.1, 0.4, 0.2, 0.7, 0.3]
    (mean, *plain), (same, *wide) = interval(values), interval(values, cross_fitted=True)
    assert same == mean
    assert np.ptp(np.array(wide)) == pytest.approx(np.ptp(np.array(plain)) * 2**0.5)


def test_differences_of_cross_fitted_photographs_are_judged_by_that_error() -> None:
    a = {str(i): 0.5 + 0.01 * i for i in range(12)}
    b = {str(i): 0.45 + 0.02 * (i % 4) for i in range(12)}
    values = np.array([a[name] - b[name] for name in a])
    difference = paired_difference(a, b, cross_fitted=True)
    assert difference is not None
    error = values.std(ddof=1) / 12**0.5 * 2**0.5
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(values.mean()) / error, 11))
    assert difference.hi == pytest.approx(values.mean() + stats.t.ppf(0.975, 11) * error)
    backwards = paired_difference(b, a, cross_fitted=True)
    assert backwards is not None
    assert backwards.p == pytest.approx(difference.p)
    nothing = paired_difference(a, a, cross_fitted=True)
    assert nothing is not None
    assert nothing.p == 1.0
    close, far = ({name: value + less for name, value in a.items()} for less in (0.0001, 0.3))
    assert significantly_different(a, {**far, "0": 0.7}, 3, cross_fitted=True)
    assert not significantly_different(a, {**close, "0": 0.4}, 3, cross_fitted=True)
