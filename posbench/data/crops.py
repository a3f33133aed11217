"""Cuts the square windows that networks see: which photograph is for training or testing, and where each crop is.

Everything is seeded, so a selection stands for the same pixels on every machine with the same versions of NumPy and
Pillow.
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
from posbench.data.photographs import MOST_THREADS, Photograph, read, readable_photographs
from posbench.plugin.components import Images
from posbench.plugin.sandbox import sandboxed

#: Pixels, at image size 224, that a window leaves on every side where the photograph allows: its true surroundings.
MARGIN = 64
#: Of a source that serves for training and testing alike, the share of photographs that is held out for testing. What
#: a score says of other photographs rests on how many were tested, so testing gets as many as training.
TEST_SHARE = 1 / 2
#: Readouts that are cross-fitted where photographs are few.
FOLDS = 2
TRAIN, TEST = 0, 1

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """The images of one role.

    Attributes:
        pixels: uint8 [n, size, size, 3], red, green, blue.
        photographs: of each image, as `NAME@hash8`; a generated image is its own, unless it equals another.
        pieces: if asked for, each image with what surrounds it, uint8 [size + 2·rows, size + 2·columns, 3], the image
            in the middle; how much there is differs from photograph to photograph.
    """

    pixels: Pixels
    photographs: tuple[str, ...]
    pieces: tuple[Pixels, ...] = ()

    def __len__(self) -> int:
        return len(self.photographs)

    def turned(self) -> Crops:
        """The same images turned by 180 degrees, with what surrounds them."""
        pieces = tuple(piece[::-1, ::-1] for piece in self.pieces)
        return Crops(np.ascontiguousarray(self.pixels[:, ::-1, ::-1]), self.photographs, pieces)


#: Whether the photographs of the training source, and of the test source, are dealt out to both roles.
Halved = tuple[bool, bool]


def cut(
    train: Images,
    test: Images,
    n_train: int,
    n_test: int,
    size: int,
    *,
    pieces: bool = False,
    halved: Halved | None = None,
) -> tuple[Crops, Crops]:
    """The training and test windows of a job, disjoint by photograph.

    Args:
        train, test: the sources.
        n_train, n_test: how many windows of each; photographs take turns.
        size: the side of a window, in pixels.
        pieces: keep what surrounds the windows.
        halved: as `split_photographs` takes it.

    Raises:
        UsageError: if there are too few photographs, or too many that cannot be read.
        Inapplicable: if pieces are asked for and a source has images that end at the window.
    """
    for_training, for_testing = split_photographs(train, test, n_test, halved)
    return (
        windows(train, for_training, TRAIN, n_train, size, pieces=pieces),
        windows(test, for_testing, TEST, n_test, size, pieces=pieces),
    )


def split_photographs(
    train: Images, test: Images, n_test: int, halved: Halved | None = None, *, crossed: bool = False
) -> tuple[list[Photograph], list[Photograph]]:
    """The photographs for training and for testing; none for a source that draws its images.

    Half of a halved source's photographs are for testing, whatever the other source is, so that what is trained on
    does not depend on what is tested on. A crossed source's photographs are for both roles, and `folds` keeps them
    apart. Beyond that, a photograph that occurs in both sources serves training alone.

    Args:
        train, test: the sources.
        n_test: how many windows will be tested on.
        halved: of each source, whether the other role draws on it too; by default, if both are one source.
        crossed: whether readouts on the training source are cross-fitted.

    Raises:
        UsageError: if there are too few.
    """
    same = train.name == test.name and train.label == test.label
    first, second = halved or (same and not crossed,) * 2
    for_training, for_testing = readable_photographs(train).photographs, readable_photographs(test).photographs
    if crossed and same and len(for_training) >= FOLDS:
        return for_training, for_training
    if first:
        for_training = _hold_out(for_training, n_test)[0]
    if second:
        for_testing = _hold_out(for_testing, n_test)[1]
    known = {photograph.digest for photograph in for_training}
    for_testing = [photograph for photograph in for_testing if photograph.digest not in known]
    if (train.photographs and not for_training) or (test.photographs and not for_testing):
        raise UsageError(
            f"images {train.label or train.name!r} and {test.label or test.name!r} leave no photograph for testing "
            "that training does not use: give at least two different photographs, or other --test-images"
        )
    return for_training, for_testing


def _hold_out(photographs: Sequence[Photograph], n_test: int) -> tuple[list[Photograph], list[Photograph]]:
    """As each test photograph is to have a window, at most `n_test` are held out."""
    held_out = min(n_test, max(1, round(len(photographs) * TEST_SHARE)))
    return list(photographs[held_out:]), list(photographs[:held_out])


def folds(train: Crops, test: Crops) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the cross-fitted readouts sees each image: in training, all but its own fold's; in testing, its own's.

    The first half of the training photographs, in the order of their images, is one fold. Test images that no training
    photograph shows are dealt out in turn: whichever readout draws for them has not seen them. Of two equal ones, each
    readout draws for one.

    Returns:
        The fold of each training and of each test image, from 0 to `FOLDS` − 1.
    """
    names = list(dict.fromkeys(train.photographs))
    fold = {name: i * FOLDS // len(names) for i, name in enumerate(names)}
    unseen = len(fold)
    of_train = [fold[name] for name in train.photographs]
    of_test = [fold.get(name, (unseen + i) % FOLDS) for i, name in enumerate(test.photographs)]
    return np.array(of_train, np.intp), np.array(of_test, np.intp)


def windows(
    images: Images, photographs: Sequence[Photograph], role: int, count: int, size: int, *, pieces: bool
) -> Crops:
    """The windows of one role: `TRAIN` or `TEST`. Arguments and errors are those of `cut`.

    Photographs take turns; the images of every other one come first, so that each fold's stand together.
    """
    if pieces and images.draw and not images.torus:
        raise Inapplicable(f"images {images.name!r} end at the window: nothing surrounds it")
    pixels = np.empty((count, size, size, 3), np.uint8)
    names = [f"{images.name}-{'test' if role == TEST else 'train'}-{i}" for i in range(count)]
    around_them: dict[int, Pixels] = {}
    places = np.argsort([i % len(photographs) % FOLDS if photographs else 0 for i in range(count)], kind="stable")
    place = dict(zip(places.tolist(), range(count), strict=True))
    if images.draw is not None:
        around, drawn = margin(size), dict[bytes, str]()
        with sandboxed(images):
            for i in range(count):
                pixels[i] = _checked(images.draw(np.random.default_rng([role, i]), size), size)
        for i in range(count):
            # Equal images are one photograph: a hundred black ones say no more than one.
            names[i] = drawn.setdefault(hashlib.sha256(pixels[i].tobytes()).digest(), names[i])
            if pieces:
                around_them[i] = np.pad(pixels[i], ((around, around), (around, around), (0, 0)), mode="wrap")

    def cut_from(first: int) -> None:
        """All crops of one photograph, which is decoded once."""
        with read(photographs[first].path) as image:
            for i in range(first, count, len(photographs)):
                pixels[place[i]], surrounded = crop(image, size, np.random.default_rng([role, i]))
                names[place[i]] = photographs[first].name
                if pieces:
                    around_them[place[i]] = surrounded()

    # Decoding and resizing let go of the interpreter, so threads share the work.
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        for _ in pool.map(cut_from, range(min(count, len(photographs)))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return Crops(pixels, tuple(names), tuple(piece for _, piece in sorted(around_them.items())))


def margin(size: int) -> int:
    """How many pixels a window of this side leaves on every side where the photograph allows."""
    return MARGIN * size // 224


def centre(piece: Pixels, height: int, width: int) -> Pixels:
    """The middle [height, width, 3] of a piece; what lies around it is even."""
    top, left = (piece.shape[0] - height) // 2, (piece.shape[1] - width) // 2
    return piece[top : top + height, left : left + width]


def _checked(drawn: Pixels, size: int) -> Pixels:
    if drawn.shape != (size, size, 3) or drawn.dtype != np.uint8:
        raise TypeError(f"drew {drawn.dtype} {drawn.shape}; expected uint8 {(size, size, 3)}")
    return drawn


def crop(image: Image.Image, size: int, rng: np.random.Generator) -> tuple[Pixels, Callable[[], Pixels]]:
    """One square window at a random place and scale, in the middle of what surrounds it.

    The scale is log-uniform between the photograph's own pixels and the smallest at which the window still has its
    margin on every side. A photograph too small for the margin is taken in its own pixels, and one smaller than the
    window is enlarged to it.

    Args:
        image: the photograph, 8-bit RGB.
        size: the side of the window, in pixels.
        rng: chooses the place and the scale.

    Returns:
        The window, uint8 [size, size, 3]; and what cuts it with its surroundings, uint8 [size + 2·rows,
        size + 2·columns, 3], rows and columns being the margin or what the photograph leaves of it.
    """
    short = min(image.size)
    roomy = size + 2 * margin(size)
    scale = np.exp(rng.uniform(np.log(roomy / short), 0)) if short >= roomy else max(1.0, size / short)
    side = min(size / scale, short)
    pixel = side / size
    # Per axis, the margin shrinks to the whole pixels that the photograph leaves.
    around = [min(margin(size), int((length - side) / 2 / pixel + 1e-6)) for length in image.size]
    shape = [size + 2 * m for m in around]
    extent = [min(cells * pixel, length) for cells, length in zip(shape, image.size, strict=True)]
    steps = [taken / cells for taken, cells in zip(extent, shape, strict=True)]
    left, top = (rng.uniform(0, length - taken) for length, taken in zip(image.size, extent, strict=True))

    def resized(rows: int, columns: int) -> Pixels:
        """The window with so many pixels above and beside it."""
        corner = left + (around[0] - columns) * steps[0], top + (around[1] - rows) * steps[1]
        width, height = size + 2 * columns, size + 2 * rows
        far = min(corner[0] + width * steps[0], image.width), min(corner[1] + height * steps[1], image.height)
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=(*corner, *far)))

    window = resized(0, 0)

    def surrounded() -> Pixels:
        piece = resized(around[1], around[0]).copy()
        # Cut by itself, a window may differ from the middle of a larger piece by rounding.
        centre(piece, size, size)[:] = window
        return piece

    return window, surrounded
