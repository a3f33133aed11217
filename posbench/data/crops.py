"""Square crops that networks see: the split into training and test photographs, and the place of each crop.

Everything is seeded: the same settings give the same pixels wherever NumPy and Pillow have the same versions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posbench.core.errors import Inapplicable, UsageError
from posbench.data.photographs import MAX_THREADS, Photograph, read, readable_photographs
from posbench.plugin.components import Images
from posbench.plugin.sandbox import sandboxed

#: The margin, in pixels at image size 224, that a crop leaves on every side where the photograph is large enough.
MARGIN = 64
#: The share of a source's photographs that is held out for testing, where the source serves for training and testing.
#: The precision of a score depends on the number of test photographs, so testing gets as many as training.
TEST_SHARE = 1 / 2
#: The number of cross-fitted readouts where photographs are few.
FOLDS = 2
TRAIN, TEST = 0, 1

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """The training or the test images of a job.

    Attributes:
        pixels: uint8 [n, size, size, 3], red, green, blue.
        photographs: the photograph of each image, as `NAME@hash8`; a drawn image is its own photograph, unless it
            equals another.
        surrounded: if requested, each image together with its surroundings, uint8 [size + 2·rows, size + 2·columns, 3],
            the image in the centre; the margins differ from photograph to photograph.
    """

    pixels: Pixels
    photographs: tuple[str, ...]
    surrounded: tuple[Pixels, ...] = ()

    def __len__(self) -> int:
        return len(self.photographs)

    def rotated(self) -> Crops:
        """Return the same images, with their surroundings, rotated by 180 degrees."""
        surrounded = tuple(image[::-1, ::-1] for image in self.surrounded)
        return Crops(np.ascontiguousarray(self.pixels[:, ::-1, ::-1]), self.photographs, surrounded)


def split_photographs(
    train: Images, test: Images, n_test: int, halved: tuple[bool, bool] | None = None, *, cross_fitted: bool = False
) -> tuple[list[Photograph], list[Photograph]]:
    """Return the training photographs and the test photographs; empty for a source that draws its images.

    Half of a halved source's photographs are for testing, whatever the other source is, so the training set does not
    depend on the test set. With cross-fitting, all photographs of the source are for both, and `folds` keeps training
    and testing apart. A photograph that occurs in two different sources is used for training only.

    Args:
        n_test: the number of test crops.
        halved: whether the training and the test source are divided; by default, if both are the same source.
        cross_fitted: whether readouts on the training source are cross-fitted.

    Raises:
        UsageError: if there are too few photographs, or too many that cannot be read.
    """
    same = train.name == test.name and train.label == test.label
    halve_train, halve_test = halved or (same and not cross_fitted,) * 2
    train_photographs, test_photographs = (readable_photographs(source).photographs for source in (train, test))
    if cross_fitted and same and len(train_photographs) >= FOLDS:
        return train_photographs, train_photographs
    if halve_train:
        train_photographs = _hold_out(train_photographs, n_test)[0]
    if halve_test:
        test_photographs = _hold_out(test_photographs, n_test)[1]
    known = {photograph.digest for photograph in train_photographs}
    test_photographs = [photograph for photograph in test_photographs if photograph.digest not in known]
    if (train.photographs and not train_photographs) or (test.photographs and not test_photographs):
        raise UsageError(
            f"images {train.label or train.name!r} and {test.label or test.name!r} leave no photograph for testing "
            "that training does not use: give at least two different photographs, or other --test-images"
        )
    return train_photographs, test_photographs


def _hold_out(photographs: Sequence[Photograph], n_test: int) -> tuple[list[Photograph], list[Photograph]]:
    """Split into training and test photographs; at most `n_test` for testing, so that each has a crop."""
    held_out = min(n_test, max(1, round(len(photographs) * TEST_SHARE)))
    return list(photographs[held_out:]), list(photographs[:held_out])


def folds(train: Crops, test: Crops) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Assign the training and the test images to cross-fitting folds, by photograph.

    Readout k trains on the images of all folds but k and is tested on the test images of fold k. The first half of the
    training photographs, in the order of their images, is fold 0. Test images of other photographs are assigned to the
    folds in turn, since no readout has trained on them.

    Returns:
        The fold of each training image and of each test image, from 0 to `FOLDS` − 1.
    """
    names = list(dict.fromkeys(train.photographs))
    fold = {name: i * FOLDS // len(names) for i, name in enumerate(names)}
    unseen = len(fold)
    of_train = [fold[name] for name in train.photographs]
    of_test = [fold.get(name, (unseen + i) % FOLDS) for i, name in enumerate(test.photographs)]
    return np.array(of_train, np.intp), np.array(of_test, np.intp)


def load_crops(
    images: Images, photographs: Sequence[Photograph], role: int, count: int, size: int, *, surrounded: bool = False
) -> Crops:
    """Return the crops of one role. Each photograph gives one crop in turn, until there are enough.

    Crops of every other photograph come first, so that the crops of a fold are adjacent.

    Args:
        photographs: those of this role, from `split_photographs`; empty for a source that draws its images.
        role: `TRAIN` or `TEST`; seeds the crops.
        size: the side of a crop, in pixels.
        surrounded: also return each crop together with its surroundings.

    Raises:
        UsageError: if a photograph can no longer be read.
        ComponentError: if the source raises, or draws something else than uint8 [size, size, 3].
        Inapplicable: if surroundings are requested of drawn images that are no torus.
    """
    if surrounded and images.draw and not images.torus:
        raise Inapplicable(f"images {images.name!r} end at the window: nothing surrounds it")
    if images.draw is not None:
        return _draw(images, images.draw, role, count, size, surrounded=surrounded)
    pixels = np.empty((count, size, size, 3), np.uint8)
    names = [""] * count
    larger: list[Pixels | None] = [None] * count
    ordered = np.argsort([i % len(photographs) % FOLDS for i in range(count)], kind="stable")
    place = dict(zip(ordered.tolist(), range(count), strict=True))

    def crop_photograph(first: int) -> None:
        """Make all crops of one photograph, which is decoded once."""
        with read(photographs[first].path) as image:
            for i in range(first, count, len(photographs)):
                pixels[place[i]], with_surroundings = random_crop(image, size, np.random.default_rng([role, i]))
                names[place[i]] = photographs[first].name
                if surrounded:
                    larger[place[i]] = with_surroundings()

    # Decoding and resizing release the GIL, so threads run in parallel.
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        for _ in pool.map(crop_photograph, range(min(count, len(photographs)))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return Crops(pixels, tuple(names), tuple(image for image in larger if image is not None))


def _draw(images: Images, draw: Callable[..., Pixels], role: int, count: int, size: int, *, surrounded: bool) -> Crops:
    """Return drawn images; their surroundings are those on the torus."""
    pixels = np.empty((count, size, size, 3), np.uint8)
    with sandboxed(images):
        for i in range(count):
            drawn = draw(np.random.default_rng([role, i]), size)
            if drawn.shape != (size, size, 3) or drawn.dtype != np.uint8:
                raise TypeError(f"drew {drawn.dtype} {drawn.shape}; expected uint8 {(size, size, 3)}")
            pixels[i] = drawn
    names: dict[bytes, str] = {}
    # Equal images count as one photograph: a hundred black images are one observation.
    photographs = [
        names.setdefault(hashlib.sha256(image.tobytes()).digest(), f"{images.name}-{('train', 'test')[role]}-{i}")
        for i, image in enumerate(pixels)
    ]
    sides = (margin(size), margin(size))
    larger = tuple(np.pad(image, (sides, sides, (0, 0)), mode="wrap") for image in pixels) if surrounded else ()
    return Crops(pixels, tuple(photographs), larger)


def margin(size: int) -> int:
    """Return the margin, in pixels, that a crop of this side leaves where the photograph is large enough."""
    return MARGIN * size // 224


def centre_crop(image: Pixels, height: int, width: int) -> Pixels:
    """Return the central [height, width, 3] of an image; the borders that are cut off are even."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> tuple[Pixels, Callable[[], Pixels]]:
    """Return one square crop at a random place and scale, and a function that returns it with its surroundings.

    The scale is log-uniform between 1 (the photograph's own pixels) and the smallest at which the crop still has its
    margin on every side. A photograph too small for the margin keeps scale 1; one smaller than the crop is enlarged.

    Args:
        image: the photograph, 8-bit RGB.
        size: the side of the crop, in pixels.

    Returns:
        The crop, uint8 [size, size, 3]; and a function without arguments that returns the crop in the centre of its
        surroundings, uint8 [size + 2·rows, size + 2·columns, 3], where rows and columns are the margin or as much of
        it as the photograph has.
    """
    short = min(image.size)
    with_margins = size + 2 * margin(size)
    scale = np.exp(rng.uniform(np.log(with_margins / short), 0)) if short >= with_margins else max(1.0, size / short)
    side = min(size / scale, short)
    pixel = side / size
    # The margin of each axis shrinks to the whole pixels that the photograph has.
    margins = [min(margin(size), int((length - side) / 2 / pixel + 1e-6)) for length in image.size]
    shape = [size + 2 * m for m in margins]
    extent = [min(cells * pixel, length) for cells, length in zip(shape, image.size, strict=True)]
    steps = [taken / cells for taken, cells in zip(extent, shape, strict=True)]
    left, top = (rng.uniform(0, length - taken) for length, taken in zip(image.size, extent, strict=True))

    def resized(rows: int, columns: int) -> Pixels:
        """Return the crop with margins of `rows` pixels above and below and `columns` pixels left and right."""
        corner = left + (margins[0] - columns) * steps[0], top + (margins[1] - rows) * steps[1]
        width, height = size + 2 * columns, size + 2 * rows
        far = min(corner[0] + width * steps[0], image.width), min(corner[1] + height * steps[1], image.height)
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=(*corner, *far)))

    cropped = resized(0, 0)

    def with_surroundings() -> Pixels:
        larger = resized(margins[1], margins[0]).copy()
        # Resized together with its surroundings, the crop could differ by rounding.
        centre_crop(larger, size, size)[:] = cropped
        return larger

    return cropped, with_surroundings
