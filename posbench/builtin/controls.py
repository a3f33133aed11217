"""The controls that ship with posbench; docs/controls.md says what each one rules out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from posbench import Check, CheckedCell, Control, ControlContext, Target, hookimpl

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from posbench import Features

#: Test images of a null. With 40, the mean over images of a network that cannot encode position reached .12, with 192
#: .03. With this many, and one SPC scattering by .38, the 95 % interval is .038 to either side of the mean, which
#: separates a null from a correlation of .1 in 99 of 100 networks.
NULL_TEST_IMAGES = 384
#: Random networks to compare a trained one with, unless the run has at least as many seeds.
SEEDS = (0, 1, 2)
#: Larger test sizes for a training size of 224, in pixels; other training sizes take the same proportions.
LARGER = (256, 288)
#: The standard deviation of the Gaussian that smooths noise into a field, as a share of the side.
SMOOTHNESS = 1 / 8


def on_null_images(cell: CheckedCell, context: ControlContext) -> bool:
    """Return True if a cell trains and tests on null images."""
    return cell.train.name == cell.test.name == context.null_images.name


def null(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """The same network and padding on null images."""
    if not (on_null_images(cell, context) and cell.n_test >= NULL_TEST_IMAGES):
        images = context.null_images
        yield Check(name="null", train=images, test=images, n_test=max(NULL_TEST_IMAGES, cell.n_test))


def no_network(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """The readout on the image itself."""
    yield Check(name="none", no_network=True)


def random_weights(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """The same architecture untrained, with several seeds."""
    if cell.random_seed is None:
        for seed in context.seeds if len(context.seeds) >= len(SEEDS) else SEEDS:
            yield Check(name="random-weights", random_weights=seed)


def held_out_positions(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """A readout fitted on part of the grid and scored on the rest, cell by cell of the grid."""
    for positions in ("columns", "quadrant"):
        yield Check(name=f"held-out-positions-{positions}", held_out=positions, score_at="grid")


def held_out_size(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """Larger test images, with the target stretched to the border or left at its pixels."""
    for size in LARGER:
        test_size = round(cell.image_size * size / 224)
        yield Check(name=f"held-out-size-{size}-border", test_size=test_size)
        # The map is cut to the pixels of a training image, which are whole cells of the grid.
        yield Check(name=f"held-out-size-{size}-pixel", test_size=test_size, score_at="grid", crop=True)


def held_out_images(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """A readout fitted on the cell's images and tested on null images, and the reverse.

    For a cell on null images, photographs take the place of these.
    """
    other = context.photographs if on_null_images(cell, context) else context.null_images
    if other is not None:
        yield Check(name="held-out-images", test=other)
        yield Check(name="held-out-images", train=other)


def rotated(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """Photographs rotated by 180 degrees."""
    if cell.test.photographs is not None:
        yield Check(name="rotated", rotate_test=True)


def permuted(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """A target whose cells, on the readout's grid, are in random order."""
    side = cell.readout.grid(cell.grid)

    def draw(size: int) -> NDArray[np.float64]:
        import numpy as np
        import torch

        from posbench.plugin.resampling import resize

        cells = resize(torch.as_tensor(cell.target.draw(size)).detach().cpu().float(), side).double().numpy()
        rng = np.random.default_rng(target_seed(cell.target))
        shuffled: NDArray[np.float64] = rng.permutation(cells.flatten()).reshape(side, side)
        nearest = ((np.arange(size) + 0.5) * side / size).astype(int)
        enlarged: NDArray[np.float64] = shuffled[np.ix_(nearest, nearest)]
        return enlarged

    yield Check(name="permuted", target=draw)


def smooth_random(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """A smooth random field with the target's values."""

    def draw(size: int) -> NDArray[np.float64]:
        import numpy as np
        from scipy.ndimage import gaussian_filter

        noise = np.random.default_rng(target_seed(cell.target)).standard_normal((size, size))
        order = gaussian_filter(noise, SMOOTHNESS * size, mode="reflect").flatten().argsort()
        field = np.empty(size * size)
        field[order] = np.sort(np.asarray(cell.target.draw(size), np.float64), axis=None)
        return field.reshape(size, size)

    yield Check(name="smooth-random", target=draw)


def target_seed(target: Target) -> int:
    """Return the seed of what is drawn at random for a target, from the target's name."""
    return zlib.crc32(target.name.encode())


def noise_features(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """Noise in place of features."""
    yield Check(name="noise-features", features=noise)


def noise(features: Features, patterns: torch.Tensor, side: int, testing: bool) -> Features:
    """Return independent standard normal values of the features' shapes; other values for training than for testing."""
    import torch

    from posbench import Features

    generator = torch.Generator().manual_seed(int(testing))
    taps = (torch.randn(tap.shape, generator=generator).to(tap.device) for tap in features.taps)
    return Features(tuple(taps), features.grid)


def target_features(cell: CheckedCell, context: ControlContext) -> Iterator[Check]:
    """The targets among the features."""
    yield Check(name="target-features", features=with_targets)


def with_targets(features: Features, patterns: torch.Tensor, side: int, testing: bool) -> Features:
    """Return the features and one more tap, whose channels are the targets, the same for every image.

    Each cell of a readout that drops a margin of the grid has its own value at the centre of what it sees.
    """
    import torch.nn.functional as F

    from posbench import Features
    from posbench.plugin.resampling import resize

    own = resize(patterns, side)[None]
    margin = features.grid - side
    if margin > 0 and margin % 2 == 0:
        own = F.pad(own, [margin // 2] * 4, mode="replicate")
    else:
        own = F.interpolate(own, size=(features.grid, features.grid), mode="bilinear")
    tap = own.permute(0, 2, 3, 1).expand(len(features), -1, -1, -1)
    return Features((*features.taps, tap), features.grid)


@hookimpl
def posbench_controls() -> Iterable[Control]:
    return [
        Control(
            name="null",
            summary="the same network and padding on leaves, where circular padding leaves no position",
            version="1",
            checks=null,
            measured=True,
            evidence="null",
        ),
        Control(
            name="none",
            summary="no network: the readout on red, green and blue alone",
            version="1",
            checks=no_network,
        ),
        Control(
            name="random-weights",
            summary="the same network untrained, three seeds or more",
            version="1",
            checks=random_weights,
            difference="trained − untrained",
            default_seeds=SEEDS,
        ),
        Control(
            name="held-out-positions",
            summary="fitted on part of the grid, scored on the rest",
            version="1",
            checks=held_out_positions,
        ),
        Control(
            name="held-out-size",
            summary="read on larger images, with the target at the border or at the pixel",
            version="1",
            checks=held_out_size,
        ),
        Control(
            name="held-out-images",
            summary="fitted on photographs and read on leaves, and the reverse",
            version="1",
            checks=held_out_images,
            label_images=True,
        ),
        Control(
            name="rotated",
            summary="read on photographs turned by 180°: content turns with them, the border does not",
            version="1",
            checks=rotated,
            evidence="rotation",
        ),
        Control(
            name="permuted",
            summary="the target's cells in random order: what the readout has room for",
            version="1",
            checks=permuted,
            target_suffix="-permuted",
            difference="selectivity: − permuted",
        ),
        Control(
            name="smooth-random",
            summary="a smooth random field with the target's values",
            version="1",
            checks=smooth_random,
            target_suffix="-smooth",
        ),
        Control(
            name="noise-features",
            summary="noise in place of features: must score 0",
            version="1",
            checks=noise_features,
        ),
        Control(
            name="target-features",
            summary="the targets among the features: must score 1",
            version="1",
            checks=target_features,
        ),
    ]
