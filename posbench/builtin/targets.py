"""The five patterns of Islam, Jia and Bruce, How Much Position Information Do Convolutional Neural Networks Encode?

The formulas were fitted to the 256×256 pictures that the authors ship and agree with them within 3 grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from posbench import Target, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pattern = NDArray[np.float64]

STRIPES = 2.5  # periods across the image
SIGMA = 0.5  # of the Gaussian, in image sides
SOURCE = "Islam, Jia & Bruce, ICLR 2020 (arXiv 2001.08248)"


def horizontal(size: int) -> Pattern:
    """Return H: 0 in the leftmost column, 1 in the rightmost, linear between. float64 [size, size]."""
    import numpy as np

    return np.tile(np.linspace(0, 1, size), (size, 1))


def vertical(size: int) -> Pattern:
    """Return V: 0 in the top row, 1 in the bottom row, linear between. float64 [size, size]."""
    return horizontal(size).T.copy()


def gaussian(size: int) -> Pattern:
    """Return G: exp(−r²/2σ²), σ half the side, centred on pixel size/2, scaled to [0, 1]. float64 [size, size]."""
    import numpy as np

    squares = (np.arange(size) - size / 2) ** 2
    bell: Pattern = np.exp(-(squares[:, None] + squares[None, :]) / (2 * (SIGMA * size) ** 2))
    bell -= bell.min()
    bell /= bell.max()
    return bell


def horizontal_stripes(size: int) -> Pattern:
    """Return HS: ½(1 + cos(2π · 2.5 · (row + ½)/size)), the same along a row. float64 [size, size] in [0, 1]."""
    import numpy as np

    wave: Pattern = (1 + np.cos(2 * np.pi * STRIPES * (np.arange(size) + 0.5) / size)) / 2
    return np.tile(wave[:, None], (1, size))


def vertical_stripes(size: int) -> Pattern:
    """Return VS: the transpose of HS. float64 [size, size] in [0, 1]."""
    return horizontal_stripes(size).T.copy()


def signed(size: int, *, draw: Callable[[int], Pattern]) -> Pattern:
    """Return a pattern rescaled from [0, 1] to [−1, 1], the scale of the paper's errors for stripes."""
    return 2 * draw(size) - 1


@hookimpl
def posbench_targets() -> Iterable[Target]:
    return [
        Target(name=name, summary=summary, version="1", source=SOURCE, draw=draw)
        for name, summary, draw in (
            ("H", "horizontal gradient, 0 left to 1 right", horizontal),
            ("V", "vertical gradient, 0 top to 1 bottom", vertical),
            ("G", "Gaussian around the centre", gaussian),
            ("HS", "horizontal stripes, 2.5 periods", horizontal_stripes),
            ("VS", "vertical stripes, 2.5 periods", vertical_stripes),
            ("HS-signed", "HS from −1 to 1, the scale of the paper's errors", partial(signed, draw=horizontal_stripes)),
            ("VS-signed", "VS from −1 to 1, the scale of the paper's errors", partial(signed, draw=vertical_stripes)),
        )
    ]
