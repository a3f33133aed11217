"""What a readout is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from posbench.plugin.features import Features
from posbench.plugin.resampling import resize


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training images' features, and the patterns to draw from them.

    Attributes:
        features: of n images.
        photographs: the photograph of each image, n names; images of one photograph are not independent.
        patterns: the targets as drawn, float32 [targets, 256, 256]; every image is to be answered with all of them.
        image_size: the side of an image, in pixels.
        seed: for a readout that draws random numbers.
        held_out: the positions of which nothing is asked in training: `columns` (every other one), `quadrant` (the one
            at the bottom right), or none.
    """

    features: Features
    photographs: Sequence[str]
    patterns: torch.Tensor
    image_size: int
    seed: int = 0
    held_out: str = ""

    def targets(self, side: int) -> torch.Tensor:
        """The patterns resized to a grid of this side, float32 [targets, side, side]; NaN where nothing is asked.

        A readout must fit the other positions alone. One that does not know of this draws NaN, and is told so.
        """
        targets = resize(self.patterns, side)
        if self.held_out:
            targets[(..., *held_out(self.held_out, side))] = torch.nan
        return targets

    def of_images(self, numbers: Sequence[int]) -> Training:
        """The same task with these images alone."""
        return replace(
            self, features=self.features.of_images(numbers), photographs=[self.photographs[i] for i in numbers]
        )


def held_out(positions: str, side: int) -> tuple[slice, slice]:
    """The rows and columns of a grid of this side that `Training.held_out` names."""
    if positions == "columns":
        return slice(None), slice(1, None, 2)
    return slice(side // 2, None), slice(side // 2, None)
