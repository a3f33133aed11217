"""Confidence intervals and tests over photographs.

Photographs are the independent units: crops of one photograph are correlated and count as one observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
#: Below this many photographs no p-value is given: with n of them the smallest p of a sign-flip test is 2^(1−n), and it
#: depends on one or two photographs.
MIN_PHOTOGRAPHS_FOR_P = 12
#: Up to this many photographs, all sign flips are enumerated; beyond, this many are drawn.
MAX_ENUMERATED, DRAWN_FLIPS = 16, 99_999

#: The factor by which cross-fitting increases the variance of a mean. One readout predicts all photographs of a half,
#: and each half trained the readout of the other, so their scores are correlated, which their variance does not show.
#: In benchmarks/null_jobs.py the plain interval covered the true value in as few as 87 of 100 jobs, and this one in at
#: least 95.
CROSS_FITTING_VARIANCE = 2.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The difference of two means.

    Attributes:
        value: the first mean minus the second.
        lo, hi: the 95 % confidence interval, or None.
        p: the two-sided p-value of a sign-flip permutation test, or None.
        n: the number of photographs that both means share; None where the means are over different photographs.
    """

    value: float
    lo: float | None
    hi: float | None
    p: float | None
    n: int | None


def _t_quantile(degrees_of_freedom: float, probability: float) -> float:
    # Imported here because `list` and `run --dry-run` need no interval and should not wait for scipy.
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))


def interval(
    values: Sequence[float], confidence: float = CONFIDENCE, *, cross_fitted: bool = False
) -> tuple[float, float | None, float | None]:
    """Return the mean and the limits of its t-interval; the limits are None for fewer than two values.

    Args:
        values: one value a photograph.
        confidence: the coverage of the interval, in (0, 1).
        cross_fitted: whether the values come from readouts that were cross-fitted on these photographs; the interval is
            then wider, see `CROSS_FITTING_VARIANCE`.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    error = float(np.std(values, ddof=1)) * ((CROSS_FITTING_VARIANCE if cross_fitted else 1) / len(values)) ** 0.5
    half = _t_quantile(len(values) - 1, (1 + confidence) / 2) * error
    return mean, mean - half, mean + half


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], *, cross_fitted: bool = False
) -> Difference | None:
    """Return the mean of a − b over the photographs that both have, or None if they share no photograph.

    Args:
        a, b: the score of each photograph.
        cross_fitted: whether readouts were cross-fitted on the photographs. Their signs are then not independent, so
            the p-value comes from Student's t with the wider standard error.
    """
    differences = _differences(a, b)
    if not len(differences):
        return None
    value, lo, hi = interval(differences.tolist(), cross_fitted=cross_fitted)
    p = None
    if len(differences) >= MIN_PHOTOGRAPHS_FOR_P:
        p = _t_test(MeanEstimate(value, lo, hi, len(differences))) if cross_fitted else sign_flip(differences)
    return Difference(value, lo, hi, p, len(differences))


def _t_test(mean: MeanEstimate) -> float:
    """Return the two-sided p-value of the mean being 0, by Student's t."""
    above = mean.p_above(0.0) if mean.value else 0.5
    return min(1.0, 2 * min(above, 1 - above))


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> Floats:
    return np.array([a[name] - b[name] for name in a if name in b], np.float64)


def sign_flip(differences: Floats) -> float:
    """Return the two-sided p-value of a sign-flip permutation test of the mean difference being 0.

    Source: Fisher, The Design of Experiments, 1935; drawn flips are counted as in Phipson & Smyth (2010).
    """
    n = len(differences)
    observed = abs(differences.sum())
    # Sums that differ by rounding alone count as equal.
    threshold = observed - 1e-12 * np.abs(differences).sum()
    if n <= MAX_ENUMERATED:
        signs = 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ differences) >= threshold).mean())
    rng, extreme = np.random.default_rng(0), 1
    for start in range(0, DRAWN_FLIPS, 10_000):
        signs = 1.0 - 2 * rng.integers(0, 2, (min(10_000, DRAWN_FLIPS - start), n))
        extreme += int((np.abs(signs @ differences) >= threshold).sum())
    return extreme / (DRAWN_FLIPS + 1)


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its 95 % t-interval, and the number of photographs that it is over."""

    value: float
    lo: float | None
    hi: float | None
    n: int

    @property
    def standard_error(self) -> float | None:
        """The standard error that the interval was computed from; None without an interval."""
        if self.lo is None or self.hi is None:
            return None
        return (self.hi - self.lo) / 2 / _t_quantile(self.n - 1, (1 + CONFIDENCE) / 2)

    def p_above(self, threshold: float) -> float:
        """Return the one-sided p-value of the mean being at most the threshold, by Student's t; 1 without interval."""
        error = self.standard_error
        if error is None:
            return 1.0
        if error == 0:
            return 0.0 if self.value > threshold else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.n - 1, (threshold - self.value) / error))


def welch_difference(a: MeanEstimate, b: MeanEstimate) -> Difference:
    """Return the difference of two published means with Welch's interval, as if their photographs were different.

    A table of means does not say whether they share photographs. If they do, the interval is too wide; there is no
    p-value.

    Source: Welch, Biometrika 1947.
    """
    value, (first, second) = a.value - b.value, (a.standard_error, b.standard_error)
    if first is None or second is None:
        return Difference(value, None, None, None, None)
    variance = first**2 + second**2
    if variance == 0:
        return Difference(value, value, value, None, None)
    degrees_of_freedom = variance**2 / (first**4 / (a.n - 1) + second**4 / (b.n - 1))
    half = _t_quantile(degrees_of_freedom, (1 + CONFIDENCE) / 2) * variance**0.5
    return Difference(value, value - half, value + half, None, None)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for multiple testing by Holm's method; each None stays None.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def significantly_different(
    a: Mapping[str, float], b: Mapping[str, float], comparisons: int, *, cross_fitted: bool = False
) -> bool:
    """Return True if the paired interval of a − b excludes 0, at 95 % for all comparisons together (Bonferroni).

    Args:
        a, b: the score of each photograph.
        comparisons: how many such comparisons are made.
        cross_fitted: as in `interval`.
    """
    differences = _differences(a, b)
    if not len(differences):
        return False
    _, lo, hi = interval(differences.tolist(), 1 - (1 - CONFIDENCE) / comparisons, cross_fitted=cross_fitted)
    return lo is not None and hi is not None and not lo <= 0 <= hi
