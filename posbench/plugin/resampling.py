"""The two ways to resize maps: aligned corners for taps, half-pixel centres for targets and predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def align(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Resize maps [n, channels, height, width] to [n, channels, side, side], bilinear with aligned corners.

    Source: as the code of Islam, Jia and Bruce (ICLR 2020) resizes taps.
    """
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


def resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Resize maps [..., height, width] to [..., side, side], bilinear with half-pixel centres.

    Source: as the code of Islam, Jia and Bruce (ICLR 2020) resizes targets and predictions.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
    return resized.view(*maps.shape[:-2], side, side)
