"""What is kept of single test images."""

from __future__ import annotations

import numpy as np
import torch

from posbench.bench.examples import EXAMPLES, SIDE, examples
from posbench.data.crops import Crops


def test_the_first_image_of_each_of_the_first_photographs() -> None:
    rng = np.random.default_rng(0)
    names = ("b", "a", "b", "c", "d", "a")
    pixels = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    drawn = torch.from_numpy(rng.normal(size=(6, 4, 4)).astype(np.float32))
    found = examples(Crops(pixels, names), drawn)
    assert [one.photograph for one in found] == ["b", "a", "c"]
    assert len(found) == EXAMPLES
    for one, number in zip(found, (0, 1, 3), strict=True):
        assert one.thumbnail == pixels[number].tobytes()  # a small image is not enlarged
        np.testing.assert_allclose(np.frombuffer(one.drawn, "<f2").reshape(4, 4), drawn[number], rtol=1e-3)


def test_a_large_image_is_made_small_and_a_large_value_is_cut_off() -> None:
    pixels = np.empty((1, 224, 224, 3), np.uint8)
    pixels[:, :, :112], pixels[:, :, 112:] = (10, 20, 30), (200, 100, 0)
    (found,) = examples(Crops(pixels, ("a",)), torch.tensor([[[1e9, -1e9], [0, 1]]]))
    small = np.frombuffer(found.thumbnail, np.uint8).reshape(SIDE, SIDE, 3)
    assert small[5, 5].tolist() == [10, 20, 30]
    assert small[5, -5].tolist() == [200, 100, 0]
    assert np.frombuffer(found.drawn, "<f2").tolist() == [65504, -65504, 0, 1]
