"""Dead leaves: no cue to position, and no edge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from posbench import dead_leaves

SIDE = 64


def stack(count: int, side: int = SIDE) -> NDArray[np.float64]:
    """Return grey images [count, side, side], the mean of three independent channels."""
    return np.stack([dead_leaves(np.random.default_rng(i), side).mean(-1) for i in range(count)])


@pytest.fixture(scope="module")
def images() -> NDArray[np.float64]:
    return stack(300)


def test_an_image_of_the_asked_size_in_eight_bits() -> None:
    for side in (17, 40, 65):
        image = dead_leaves(np.random.default_rng(0), side)
        assert image.shape == (side, side, 3)
        assert image.dtype == np.uint8


def test_a_side_that_leaves_no_radii_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 17 pixels, not 16"):
        dead_leaves(np.random.default_rng(0), 16)


def test_the_seed_is_the_image() -> None:
    first, again, other = (dead_leaves(np.random.default_rng(seed), SIDE) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class Moved(np.random.Generator):
    """A generator of the same numbers, with each disc's centre shifted on the torus."""

    def __init__(self, seed: int, by: tuple[int, int]) -> None:
        super().__init__(np.random.PCG64(seed))
        self.by = np.array(by) / SIDE

    def random(self, size: object = None) -> NDArray[np.float64]:  # type: ignore[override]
        drawn = super().random(size)  # type: ignore[call-overload]
        return (drawn + self.by) % 1 if np.ndim(drawn) == 2 else drawn  # type: ignore[no-any-return]


@pytest.mark.parametrize("by", [(0, 0), (1, 0), (0, 63), (20, 41)])
def test_moving_every_disc_moves_the_image_round_the_torus(by: tuple[int, int]) -> None:
    still = dead_leaves(np.random.Generator(np.random.PCG64(5)), SIDE)
    assert np.array_equal(dead_leaves(Moved(5, by), SIDE), np.roll(still, by, axis=(0, 1)))


@pytest.mark.parametrize("axis", [1, 2])
def test_the_seam_is_like_any_other_line(axis: int, images: NDArray[np.float64]) -> None:
    steps = np.abs(images - np.roll(images, 1, axis))  # at index 0: across the seam
    per_line = steps.mean(3 - axis)  # [image, line]
    seam, others = per_line[:, 0], per_line[:, 1:].mean(1)
    difference = seam - others
    assert abs(difference.mean()) < 4 * difference.std() / len(images) ** 0.5
    # With an edge instead, neighbours across the seam would be strangers.
    strangers = np.abs(images - np.roll(images, SIDE // 2, axis)).mean()
    assert seam.mean() < strangers / 2


@pytest.mark.parametrize("axis", [1, 2])
def test_no_line_is_brighter_or_busier_than_another(axis: int, images: NDArray[np.float64]) -> None:
    busy = np.abs(images - np.roll(images, 1, axis))
    for quantity in (images, (images - 127.5) ** 2, busy):
        per_line = quantity.mean(3 - axis)
        centred = per_line - per_line.mean(1, keepdims=True)
        scores = centred.mean(0) / (centred.std(0) / len(images) ** 0.5)
        # 64 lines, dependent: beyond 4.5 standard errors one in 2000 such tests would find any.
        assert np.abs(scores).max() < 4.5


def test_colours_are_uniform(images: NDArray[np.float64]) -> None:
    # A channel's mean is 127.5; the mean of three has the variance (256² − 1) / 12 / 3.
    assert images.mean() == pytest.approx(127.5, abs=4 * images.mean((1, 2)).std() / len(images) ** 0.5)
    variance = ((images - 127.5) ** 2).mean((1, 2))
    assert variance.mean() == pytest.approx((256**2 - 1) / 36, abs=4 * variance.std() / len(images) ** 0.5)


def test_the_last_disc_fallen_is_whole() -> None:
    class One(np.random.Generator):
        """A generator that puts every disc in one place, with one radius."""

        def __init__(self) -> None:
            super().__init__(np.random.PCG64(0))

        def random(self, size: object = None) -> NDArray[np.float64]:  # type: ignore[override]
            shape = size if isinstance(size, tuple) else (size,)
            return np.zeros(shape)

    # Radius 4 about the corner (0, 0), which lies in all four corners of the plane: 49 cells within it.
    image = dead_leaves(One(), SIDE)
    discs, ground = image[0, 0], image[32, 32]
    inside = (image == discs).all(-1)
    near = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    assert np.array_equal(inside, np.add.outer(near**2, near**2) <= 16)
    assert inside.sum() == 49
    assert (image[~inside] == ground).all()
