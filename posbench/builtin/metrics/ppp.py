"""The position-information pattern from padding (PPP): what padding adds to the features of any image.

Lin et al., Unveiling the Mask of Position-Information Pattern Through the Mist of Image Features (arXiv 2206.01202),
compare the features of an image under a padding with those of the same pixels inside a larger image. Averaged over
images, differences that depend on content cancel, and the pattern remains. The definitions here differ in two ways:
channels are scaled, since taps have different units, and the value expected from noise alone is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from posbench import Features, Inapplicable
from posbench.builtin.readouts.standardize import CONSTANT


@dataclass(frozen=True)
class TapPattern:
    """The pattern of one tap, in units of each channel's standard deviation.

    Attributes:
        mae: for each photograph, the mean over cells and channels of its difference times the sign of the pattern of
            all other photographs. The mean over photographs is the pattern's mean absolute value where its signs are
            certain, and 0 in expectation where there is no pattern.
        snr: the pattern's mean square, minus the part due to the variance between photographs, over that variance; at
            least 0.
        picture: the mean over channels of the pattern's absolute value, float32 [height, width].
    """

    mae: dict[str, float]
    snr: float
    picture: torch.Tensor


@torch.inference_mode()
def ppp_patterns(padded: Features, surrounded: Features, photographs: Sequence[str]) -> list[TapPattern]:
    """Return the pattern of each tap, from the shallowest to the deepest.

    The features of the same images are compared, under a padding and within their true surroundings.

    Raises:
        Inapplicable: if all images are of one photograph.
    """
    names = list(dict.fromkeys(photographs))
    if len(names) < 2:
        raise Inapplicable("what padding adds is told from content by different photographs, and there is one")
    images = {name: [i for i, other in enumerate(photographs) if other == name] for name in names}
    return [_pattern(a, b, images) for a, b in zip(padded.taps, surrounded.taps, strict=True)]


def _pattern(padded: torch.Tensor, surrounded: torch.Tensor, images: dict[str, list[int]]) -> TapPattern:
    surrounded = surrounded.float()
    deviation, mean = torch.std_mean(surrounded, dim=(0, 1, 2), correction=0)
    varies = deviation > CONSTANT * mean.abs()
    scale = torch.where(varies, 1 / deviation.where(varies, torch.ones_like(deviation)), 0.0)
    differences = (padded.float() - surrounded) * scale
    of_photograph = torch.stack([differences[indices].mean(0) for indices in images.values()])
    count, total = len(of_photograph), of_photograph.sum(0)
    values = of_photograph[0].numel() * varies.double().mean().clamp(min=torch.finfo(torch.float64).tiny)
    mae = {
        name: float(((total - own).sign() * own).sum(dtype=torch.float64) / values)
        for name, own in zip(images, of_photograph, strict=True)
    }
    noise = of_photograph.var(0).sum(dtype=torch.float64)
    signal = (total / count).square().sum(dtype=torch.float64) - noise / count
    snr = float((signal / noise).clamp(min=0)) if bool(noise > 0) else 0.0
    channels = varies.sum().clamp(min=1)
    return TapPattern(mae, snr, (total / count).abs().sum(-1) / channels)
