"""Rank correlation read as reach: how far from the border, in pixels, must one know one's position to draw as well?

An oracle knows its distance to the left and right borders where that is less than k pixels, and its distance to the top
and bottom likewise, and nothing else. The best that it can draw is the mean of the target given what it knows. Its
correlation rises from 0 at k = 0 to 1 at half the image, where it knows everything; the reach of a correlation is the k
at which the oracle attains it.

For a horizontal gradient on an image of side W the correlation is √(1 − (1 − 2k/W)³): the columns in the middle, a
share u = 1 − 2k/W of all, tie. For ranks in [0, 1] their variance 1/12 loses what varies within the tie, u · u²/12.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

#: The oracle's grid. A target is averaged down to it if that is finer.
SIDE = 128
#: A target has a reach only if knowing more never draws worse than by so much: of stripes, an oracle that knows half a
#: period ranks the rest no better than one that knows a quarter, and a correlation could be read in several ways.
FALL = 0.005

Floats = NDArray[np.float64]


def ceiling(image_size: int) -> float:
    """The greatest reach, in pixels: who knows as much knows every position."""
    return image_size / 2


def curve(pattern: NDArray[np.floating], image_size: int) -> tuple[Floats, Floats] | None:
    """What the oracle attains.

    Args:
        pattern: the target as drawn, [side, side].
        image_size: in pixels.

    Returns:
        Distances from 0 to the ceiling, in pixels, and the rank correlation at each, rising; or None if the target has
        no reach: it is constant, or the oracle's correlation falls somewhere.
    """
    pattern = np.ascontiguousarray(pattern, np.float64)
    if pattern.min() == pattern.max():
        return None
    attained = np.array(_attained(pattern.tobytes(), len(pattern)))
    if np.diff(attained).min() < -FALL:
        return None
    return np.linspace(0, ceiling(image_size), len(attained)), np.maximum.accumulate(attained)


def reach(pattern: NDArray[np.floating], spc: float, image_size: int) -> float | None:
    """The least distance from the border, in pixels, at which the oracle draws as well.

    Args:
        pattern: the target as drawn, [side, side].
        spc: Spearman's rank correlation of a drawn map with it.
        image_size: in pixels.

    Returns:
        From 0, for a correlation of 0 or less, to `ceiling`, for one of 1; None if the target has no reach.
    """
    found = curve(pattern, image_size)
    if found is None:
        return None
    distances, attained = found
    after = int(np.searchsorted(attained, spc))
    if after == 0:
        return 0.0
    if after == len(attained):
        return float(distances[-1])
    share = (spc - attained[after - 1]) / (attained[after] - attained[after - 1])
    return float(distances[after - 1] + share * (distances[after] - distances[after - 1]))


@lru_cache(maxsize=64)
def _attained(pattern: bytes, side: int) -> tuple[float, ...]:
    target = np.frombuffer(pattern).reshape(side, side)
    if side > SIDE and side % SIDE == 0:
        blocks = side // SIDE
        target = target.reshape(SIDE, blocks, SIDE, blocks).mean((1, 3))
    ranks = rankdata(target)
    best = [_correlation(rankdata(_drawn(target, known)), ranks) for known in range(len(target) // 2 + 1)]
    return tuple(best)


def _drawn(target: Floats, known: int) -> Floats:
    """The target's mean given the distances to borders that are less than so many cells."""
    drawn, middle = target.copy(), slice(known, len(target) - known)
    if known < len(target) - known:
        drawn[middle, :] = target[middle, :].mean(0, keepdims=True)
        drawn[:, middle] = target[:, middle].mean(1, keepdims=True)
        drawn[middle, middle] = target[middle, middle].mean()
    # What is equal by symmetry may differ in rounding, which must not order it.
    return drawn.round(12)


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0
