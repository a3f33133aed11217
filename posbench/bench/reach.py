"""Converts a rank correlation to a reach: the distance from the border within which an oracle must know its position.

The oracle knows its distance to the left and right borders where that is less than k pixels, and its distance to the
top and bottom likewise, and nothing else. Its best prediction is the mean of the target given what it knows. The rank
correlation of that prediction rises from 0 at k = 0 to 1 at half the image, where the oracle knows everything. The
reach of a correlation is the k at which the oracle attains it.

For a horizontal gradient on an image of side W the correlation is √(1 − (1 − 2k/W)³): the columns in the middle, a
share u = 1 − 2k/W of all, tie. For ranks in [0, 1] their variance 1/12 loses what varies within the tie, u · u²/12.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

#: The side of the oracle's grid. A finer target is averaged down to it.
SIDE = 128
#: How much the oracle's correlation may fall as it knows more. A target with a larger fall has no reach: of stripes, an
#: oracle that knows half a period ranks the rest no better than one that knows a quarter, and several distances would
#: have the same correlation.
FALL = 0.005

Floats = NDArray[np.float64]


def ceiling(image_size: int) -> float:
    """Return the greatest reach, in pixels: an oracle that knows as much knows every position."""
    return image_size / 2


def curve(pattern: NDArray[np.floating], image_size: int) -> tuple[Floats, Floats] | None:
    """Return the oracle's rank correlation with a target [side, side] by distance, for an image size in pixels.

    Returns:
        Distances from 0 to the ceiling, in pixels, and the rank correlation at each, rising; or None if the target has
        no reach: it is constant, or the oracle's correlation falls somewhere.
    """
    pattern = np.ascontiguousarray(pattern, np.float64)
    if pattern.min() == pattern.max():
        return None
    correlations = np.array(_oracle_correlations(pattern.tobytes(), len(pattern)))
    if np.diff(correlations).min() < -FALL:
        return None
    return np.linspace(0, ceiling(image_size), len(correlations)), np.maximum.accumulate(correlations)


def reach(pattern: NDArray[np.floating], correlation: float, image_size: int) -> float | None:
    """Return the least distance from the border, in pixels, at which the oracle attains a correlation.

    The correlation is Spearman's, of a predicted map with the target [side, side]; the image size is in pixels.

    Returns:
        From 0, for a correlation of 0 or less, to `ceiling`, for one of 1; None if the target has no reach.
    """
    oracle = curve(pattern, image_size)
    if oracle is None:
        return None
    distances, correlations = oracle
    after = int(np.searchsorted(correlations, correlation))
    if after in (0, len(correlations)):
        return float(distances[max(0, after - 1)])
    share = (correlation - correlations[after - 1]) / (correlations[after] - correlations[after - 1])
    return float(distances[after - 1] + share * (distances[after] - distances[after - 1]))


@lru_cache(maxsize=64)
def _oracle_correlations(pattern: bytes, side: int) -> tuple[float, ...]:
    target = np.frombuffer(pattern).reshape(side, side)
    if side > SIDE and side % SIDE == 0:
        blocks = side // SIDE
        target = target.reshape(SIDE, blocks, SIDE, blocks).mean((1, 3))
    ranks = rankdata(target)
    predictions = (_oracle_prediction(target, known) for known in range(len(target) // 2 + 1))
    return tuple(_correlation(rankdata(prediction), ranks) for prediction in predictions)


def _oracle_prediction(target: Floats, known: int) -> Floats:
    """Return the target's mean given the distances to borders that are less than `known` cells."""
    prediction, middle = target.copy(), slice(known, len(target) - known)
    if known < len(target) - known:
        prediction[middle, :] = target[middle, :].mean(0, keepdims=True)
        prediction[:, middle] = target[:, middle].mean(1, keepdims=True)
        prediction[middle, middle] = target[middle, middle].mean()
    # Values that are equal by symmetry may differ by rounding, which must not order them.
    return prediction.round(12)


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0
