"""The input and the output of a metric of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from posbench.plugin.features import Features


@dataclass(frozen=True)
class Split:
    """The features of training images and test images from different photographs.

    Attributes:
        train, test: the features.
        photographs: the photograph of each test image.
    """

    train: Features
    test: Features
    photographs: Sequence[str]


@dataclass(frozen=True)
class Observation:
    """The features of one network under one padding.

    Attributes:
        splits: one split; with cross-fitting one a fold, which together test every photograph once.
        test: the features of all test images.
        photographs: the photograph of each test image.
        surrounded: returns the features of the same test images within their true surroundings, from another pass. It
            raises Inapplicable if the images have no surroundings, or the network cannot be run with them.
    """

    splits: Sequence[Split]
    test: Features
    photographs: Sequence[str]
    surrounded: Callable[[], Features]


@dataclass(frozen=True)
class Reading:
    """One number about a job.

    Attributes:
        by_photograph: the value of each test photograph.
        tap: `all`, or the number of a tap, from 1.
        value: the number itself, if it is not the mean over photographs; it then has no interval.
        picture: an image of what was measured, float32 [rows, columns], or None.
    """

    by_photograph: Mapping[str, float]
    tap: str = "all"
    value: float | None = None
    picture: torch.Tensor | None = None
