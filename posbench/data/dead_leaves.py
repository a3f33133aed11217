"""Dead-leaves images: natural statistics without a cue to absolute position."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def dead_leaves(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Draw opaque discs of random colour that occlude each other, on a torus.

    Radii have density r⁻³ between 4 pixels and a quarter of the side, which gives the scale invariance of natural
    images; colours are uniform. Enough discs are drawn to cover the plane six times. Every position is equally likely,
    so the images hold no cue to absolute position.

    Args:
        size: side in pixels, at least 17.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: if the size is below 17: a quarter of it is then no larger than the smallest radius.

    Source:
        Lee, Mumford and Huang, Occlusion models for natural images, IJCV 2001.
    """
    import numpy as np  # imported here so that listing images needs no NumPy

    smallest, largest = 4.0, size / 4
    if largest <= smallest:
        raise ValueError(f"dead leaves need a side of at least 17 pixels, not {size}")
    # Inverse of the distribution function of p(r) ∝ r⁻³; the mean disc area follows from the same density.
    mean_area = 2 * np.pi * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    count = int(np.ceil(6 * size * size / mean_area))
    radii = (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    centres = rng.random((count, 2)) * size
    colours = rng.integers(0, 256, (count + 1, 3), dtype=np.uint8)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colours[-1]
    for radius, (row, column), colour in zip(radii, centres, colours[:-1], strict=True):
        rows = np.arange(int(np.ceil(row - radius)), int(np.floor(row + radius)) + 1)
        columns = np.arange(int(np.ceil(column - radius)), int(np.floor(column + radius)) + 1)
        inside = (rows[:, None] - row) ** 2 + (columns[None, :] - column) ** 2 <= radius**2
        at_row, at_column = np.nonzero(inside)
        image[rows[at_row] % size, columns[at_column] % size] = colour
    return image
