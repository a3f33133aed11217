"""What controls change between a job's features and its scores; `posbench.bench.controls` says what each is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from posbench.bench.plan import Cell
from posbench.data.crops import TRAIN
from posbench.plugin.features import Features
from posbench.plugin.resampling import resize
from posbench.plugin.training import Training, held_out


def unchanged(features: Features, role: int, patterns: torch.Tensor, side: int) -> Features:
    """The features as they are."""
    return features


def noise(features: Features, role: int, patterns: torch.Tensor, side: int) -> Features:
    """Independent standard normal values in the place of all features, others in training than in testing."""
    generator = torch.Generator().manual_seed(role)
    taps = (torch.randn(tap.shape, generator=generator).to(tap.device) for tap in features.taps)
    return Features(tuple(taps), features.grid)


def with_targets(features: Features, role: int, patterns: torch.Tensor, side: int) -> Features:
    """The features and one more tap, whose channels hold the targets themselves, the same for every image.

    Each readout cell finds its own value in the middle of what it sees.
    """
    own = resize(patterns, side)[None]
    beyond = features.grid - side
    if beyond > 0 and beyond % 2 == 0:
        own = F.pad(own, [beyond // 2] * 4, mode="replicate")
    else:
        own = F.interpolate(own, size=(features.grid, features.grid), mode="bilinear")
    tap = own.permute(0, 2, 3, 1).expand(len(features), -1, -1, -1)
    return Features((*features.taps, tap), features.grid)


@dataclass(frozen=True)
class Treatment:
    """How a control's readouts are fitted.

    Attributes:
        features: takes features, the role of their images, the target patterns and the side of the readout's maps.
        held_out: see `Training.held_out`.
    """

    features: Callable[[Features, int, torch.Tensor, int], Features] = unchanged
    held_out: str = ""

    def of(self, training: Training, side: int) -> Training:
        """The task under this treatment, for a readout that draws maps of this side."""
        features = self.features(training.features, TRAIN, training.patterns, side)
        return replace(training, features=features, held_out=self.held_out)


PLAIN = Treatment()
#: The controls whose readouts are fitted apart from those of plain cells. A target of its own is one of them, so that
#: plain scores are the same to the last bit whether or not controls are asked for.
TREATMENTS = {
    "held-out-positions-columns": Treatment(held_out="columns"),
    "held-out-positions-quadrant": Treatment(held_out="quadrant"),
    "permuted": PLAIN,
    "smooth-random": PLAIN,
    "noise-features": Treatment(features=noise),
    "target-features": Treatment(features=with_targets),
}


def judged(cell: Cell, maps: torch.Tensor, pattern: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of a cell's maps that is scored, and what it is held against.

    Args:
        maps: as drawn, [n, side, side].
        pattern: the target as drawn, [256, 256].

    Returns:
        Maps [n, height, width] and target [height, width].
    """
    job, side = cell.job, maps.shape[-1]
    if cell.control.endswith("-pixel"):
        # The map of a larger image, cut to a training image's pixels: the target does not move with the border.
        side = cell.readout.grid(job.grid)
        return maps[:, :side, :side], resize(pattern, side)
    if positions := TREATMENTS.get(cell.control, PLAIN).held_out:
        rows, columns = held_out(positions, side)
        return maps[:, rows, columns], resize(pattern, side)[rows, columns]
    if cell.score_at == "image":
        side = job.test_size or job.image_size
        maps = resize(maps, side)
    return maps, resize(pattern, side)
