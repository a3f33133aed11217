"""What a readout drew for single test images, small enough to be kept with every result."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from posbench.bench.records import Example
from posbench.data.crops import Crops

#: Of how many photographs an example is kept.
EXAMPLES = 3
#: The longest side of what is kept of a photograph, in pixels: enough to see what it shows.
SIDE = 112


def examples(test: Crops, drawn: torch.Tensor) -> list[Example]:
    """The first test image of each of the first photographs, and what was drawn for it.

    Args:
        test: the images.
        drawn: what was drawn for each, float32 [n, side, side]; kept as float16, cut off where that ends.
    """
    first = {name: number for number, name in reversed(list(enumerate(test.photographs)))}
    most = np.finfo(np.float16).max
    return [
        Example(name, _small(test, number), drawn[number].cpu().numpy().clip(-most, most).astype("<f2").tobytes())
        for name, number in sorted(first.items(), key=lambda one: one[1])[:EXAMPLES]
    ]


def _small(test: Crops, number: int) -> bytes:
    image = Image.fromarray(test.pixels[number])
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image.tobytes()
