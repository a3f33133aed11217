"""The two ways to resize maps: aligned corners for taps, half-pixel centres for targets and predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def align(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps [n, channels, height, width] resized to [n, channels, side, side]: bilinear, corner on corner.

    Source: the authors' code for Islam, Jia and Bruce (ICLR 2020) resizes its taps so.
    """
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


def resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps [..., height, width] resized to [..., side, side], bilinear, not corner on corner.

    Source: the authors' code for Islam, Jia and Bruce (ICLR 2020) resizes targets and predictions so.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
    return resized.view(*maps.shape[:-2], side, side)
