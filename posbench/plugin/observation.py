"""What a metric of a job sees, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from posbench.plugin.features import Features


@dataclass(frozen=True)
class Split:
    """Features of training images and of test images, of different photographs.

    Attributes:
        photographs: the photograph of each test image.
    """

    train: Features
    test: Features
    photographs: Sequence[str]


@dataclass(frozen=True)
class Observation:
    """The features of one network under one padding.

    Attributes:
        splits: one, or where readouts are cross-fitted one a fold, which together test every photograph once.
        test: of all test images.
        photographs: the photograph of each test image.
        surrounded: makes the features of the same test images within their true surroundings, in another pass.

    `surrounded` raises Inapplicable if the images have none, or the network cannot be run so.
    """

    splits: Sequence[Split]
    test: Features
    photographs: Sequence[str]
    surrounded: Callable[[], Features]


@dataclass(frozen=True)
class Reading:
    """One number about a job.

    Attributes:
        tap: `all`, or the number of one, from 1.
        by_photograph: a value for each test photograph.
        value: the number itself, where it is not the mean over photographs; it then has no interval.
        picture: what it looks like, float32 [rows, columns], or nothing.
    """

    by_photograph: Mapping[str, float]
    tap: str = "all"
    value: float | None = None
    picture: torch.Tensor | None = None
