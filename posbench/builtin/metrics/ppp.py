"""The position-information pattern from padding (PPP): what padding adds to features, whatever the image.

Lin et al., Unveiling the Mask of Position-Information Pattern Through the Mist of Image Features (arXiv 2206.01202),
compare the features of an image under a padding with those of the same pixels within a larger image, and average the
difference over images: content averages out, and what padding adds everywhere alike stays. They read it as a mean
absolute value and as a signal-to-noise ratio. The definitions here are after theirs, not theirs to the letter: channels
are scaled, since features of different taps have different units, and what noise alone would give is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from posbench.core.errors import Inapplicable
from posbench.plugin.features import Features

#: A channel whose standard deviation is below this share of its magnitude is constant up to rounding.
CONSTANT = 1e-5


@dataclass(frozen=True)
class TapPattern:
    """The pattern of one tap, in standard deviations of each channel.

    Attributes:
        mae: for each photograph, the mean over cells and channels of what its difference has in the direction, up or
            down, of the pattern of all others. Their mean is the pattern's mean absolute value where the direction is
            certain, and 0 where there is no pattern.
        snr: the pattern's mean square, less what the spread of photographs adds to it, over that spread; at least 0.
        picture: the mean over channels of the pattern's absolute value, float32 [height, width].
    """

    mae: dict[str, float]
    snr: float
    picture: torch.Tensor


@torch.inference_mode()
def patterns(padded: Features, true: Features, photographs: Sequence[str]) -> list[TapPattern]:
    """The pattern of each tap, from the shallowest to the deepest.

    Args:
        padded: features of images under a padding.
        true: of the same images, in the same order, within their true surroundings.
        photographs: the photograph of each image.

    Raises:
        Inapplicable: if all images are of one photograph.
    """
    names = list(dict.fromkeys(photographs))
    if len(names) < 2:
        raise Inapplicable("what padding adds is told from content by different photographs, and there is one")
    images = {name: [i for i, other in enumerate(photographs) if other == name] for name in names}
    return [_pattern(a, b, images) for a, b in zip(padded.taps, true.taps, strict=True)]


def _pattern(padded: torch.Tensor, true: torch.Tensor, images: dict[str, list[int]]) -> TapPattern:
    true = true.float()
    spread, mean = torch.std_mean(true, dim=(0, 1, 2), correction=0)
    varies = spread > CONSTANT * mean.abs()
    scale = torch.where(varies, 1 / spread.where(varies, torch.ones_like(spread)), 0.0)
    differences = (padded.float() - true) * scale
    of_photograph = torch.stack([differences[numbers].mean(0) for numbers in images.values()])
    count, total = len(of_photograph), of_photograph.sum(0)
    kept = of_photograph[0].numel() * varies.double().mean().clamp(min=torch.finfo(torch.float64).tiny)
    mae = {
        name: float(((total - own).sign() * own).sum(dtype=torch.float64) / kept)
        for name, own in zip(images, of_photograph, strict=True)
    }
    noise = of_photograph.var(0).sum(dtype=torch.float64)
    signal = (total / count).square().sum(dtype=torch.float64) - noise / count
    snr = float((signal / noise).clamp(min=0)) if bool(noise > 0) else 0.0
    channels = varies.sum().clamp(min=1)
    return TapPattern(mae, snr, (total / count).abs().sum(-1) / channels)
