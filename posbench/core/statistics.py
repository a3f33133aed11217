"""Intervals and comparisons over photographs, which are the independent units: crops of one photograph are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
#: Below this many photographs no p-value is given: with n of them a sign-flip test cannot answer below 2^(1−n), and
#: what it does answer hangs on one or two photographs.
FEWEST_FOR_P = 12
#: Up to this many photographs all sign flips are enumerated; beyond, so many are drawn.
ENUMERATED, DRAWN = 16, 99_999

#: By how much the variance of a mean grows where photographs are cross-fitted. Those of a half are drawn for by one
#: readout, and each half has trained the other's: their scores vary together, which their scatter does not show. In
#: benchmarks/null_jobs.py the plain interval held the truth in as few as 87 of 100 jobs, this one in 95 and more.
MUTUAL = 2.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One mean less another.

    Attributes:
        value: the difference.
        lo, hi: its 95 % interval; None where there is none.
        p: two-sided, of a sign-flip permutation test; None where it is not to be had.
        n: the photographs that it rests on; None where the two rest on different ones.
    """

    value: float
    lo: float | None
    hi: float | None
    p: float | None
    n: int | None


def _t(freedom: float, probability: float) -> float:
    """The quantile of Student's t."""
    # Whoever lists or plans computes no interval, and need not wait for this import.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def interval(
    values: Sequence[float], confidence: float = CONFIDENCE, *, mutual: bool = False
) -> tuple[float, float | None, float | None]:
    """The mean of values and its interval by Student's t; no interval for fewer than two.

    Args:
        values: of independent photographs.
        mutual: whether they are independent but for readouts that were cross-fitted on them; see `MUTUAL`.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    error = float(np.std(values, ddof=1)) * ((MUTUAL if mutual else 1) / len(values)) ** 0.5
    half = _t(len(values) - 1, (1 + confidence) / 2) * error
    return mean, mean - half, mean + half


def paired(a: Mapping[str, float], b: Mapping[str, float], *, mutual: bool = False) -> Difference | None:
    """The mean of a − b over the photographs that both have, or None if they share none.

    Args:
        a, b: a score by photograph.
        mutual: whether the photographs were cross-fitted; their signs are then no coins of their own, so the p-value is
            by Student's t with the wider error.
    """
    differences = _differences(a, b)
    if not len(differences):
        return None
    value, lo, hi = interval(differences.tolist(), mutual=mutual)
    p = None
    if len(differences) >= FEWEST_FOR_P:
        p = _two_sided(Mean(value, lo, hi, len(differences))) if mutual else sign_flip(differences)
    return Difference(value, lo, hi, p, len(differences))


def _two_sided(mean: Mean) -> float:
    """The p-value of a mean, by Student's t, were the truth 0."""
    above = mean.p_above(0.0) if mean.value else 0.5
    return min(1.0, 2 * min(above, 1 - above))


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> Floats:
    return np.array([a[name] - b[name] for name in a if name in b], np.float64)


def sign_flip(differences: Floats) -> float:
    """The two-sided p-value of a mean difference, were each as likely to have the other sign.

    Source: Fisher, The Design of Experiments, 1935; with the count of drawn flips as Phipson & Smyth (2010) correct it.
    """
    n = len(differences)
    observed = abs(differences.sum())
    # Sums that differ in rounding alone are equal.
    enough = observed - 1e-12 * np.abs(differences).sum()
    if n <= ENUMERATED:
        signs = 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ differences) >= enough).mean())
    rng, as_far = np.random.default_rng(0), 1
    for start in range(0, DRAWN, 10_000):
        signs = 1.0 - 2 * rng.integers(0, 2, (min(10_000, DRAWN - start), n))
        as_far += int((np.abs(signs @ differences) >= enough).sum())
    return as_far / (DRAWN + 1)


@dataclass(frozen=True)
class Mean:
    """A mean as tables publish it: its value, 95 % interval, and how many photographs it is over."""

    value: float
    lo: float | None
    hi: float | None
    n: int

    @property
    def error(self) -> float | None:
        """The standard error that the interval was made from; None without one."""
        if self.lo is None or self.hi is None:
            return None
        return (self.hi - self.lo) / 2 / _t(self.n - 1, (1 + CONFIDENCE) / 2)

    def p_above(self, threshold: float) -> float:
        """The one-sided p-value, by Student's t, of the mean being at most the threshold; 1 without interval."""
        error = self.error
        if error is None:
            return 1.0
        if error == 0:
            return 0.0 if self.value > threshold else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.n - 1, (threshold - self.value) / error))


def unpaired(a: Mean, b: Mean) -> Difference:
    """The difference of two published means as if their photographs were different, with Welch's interval.

    There is no p-value: whether they share photographs, a table does not say, and if they do, the interval is too wide.

    Source: Welch, Biometrika 1947.
    """
    value, (first, second) = a.value - b.value, (a.error, b.error)
    if first is None or second is None:
        return Difference(value, None, None, None, None)
    variance = first**2 + second**2
    if variance == 0:
        return Difference(value, value, value, None, None)
    freedom = variance**2 / (first**4 / (a.n - 1) + second**4 / (b.n - 1))
    half = _t(freedom, (1 + CONFIDENCE) / 2) * variance**0.5
    return Difference(value, value - half, value + half, None, None)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for being read together, each None left as it is.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    adjusted: list[float | None] = [None] * len(ps)
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[i] = least
    return adjusted


def distinguishable(a: Mapping[str, float], b: Mapping[str, float], comparisons: int, *, mutual: bool = False) -> bool:
    """Whether the paired interval of a − b leaves out 0, at 95 % for so many comparisons together (Bonferroni)."""
    differences = _differences(a, b)
    if not len(differences):
        return False
    _, lo, hi = interval(differences.tolist(), 1 - (1 - CONFIDENCE) / comparisons, mutual=mutual)
    return lo is not None and hi is not None and not lo <= 0 <= hi
