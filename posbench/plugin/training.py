"""The training data of a readout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from posbench.plugin.features import Features
from posbench.plugin.resampling import resize


@dataclass(frozen=True, kw_only=True)
class Training:
    """The features of the training images, and the target patterns.

    Attributes:
        features: of n images.
        photographs: the photograph of each image, n names; images of one photograph are not independent.
        patterns: the target patterns, float32 [targets, 256, 256]; the same for every image.
        image_size: the side of an image, in pixels.
        seed: the seed of a stochastic readout.
        held_out: the positions that are masked in training: `columns` (every other column), `quadrant` (the bottom
            right one), or an empty string.
    """

    features: Features
    photographs: Sequence[str]
    patterns: torch.Tensor
    image_size: int
    seed: int = 0
    held_out: str = ""

    def targets(self, side: int) -> torch.Tensor:
        """Return the patterns resized to a grid of this side, float32 [targets, side, side]; NaN at masked positions.

        A readout must fit the other positions only. If it ignores the mask, its predictions are NaN and its cell fails.
        """
        targets = resize(self.patterns, side)
        if self.held_out:
            targets[(..., *held_out(self.held_out, side))] = torch.nan
        return targets

    def of_images(self, indices: Sequence[int]) -> Training:
        """Return the training data with only the images at these indices."""
        photographs = [self.photographs[i] for i in indices]
        return replace(self, features=self.features.of_images(indices), photographs=photographs)


def held_out(positions: str, side: int) -> tuple[slice, slice]:
    """Return the rows and columns of a grid of this side that are masked, as `Training.held_out` names them."""
    if positions == "columns":
        return slice(None), slice(1, None, 2)
    return slice(side // 2, None), slice(side // 2, None)
