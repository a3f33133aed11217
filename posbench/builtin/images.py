"""Photographs that ship inside packages, dead leaves, constant images and noise."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench import Images, MissingError, hookimpl
from posbench.data.dead_leaves import dead_leaves

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ISLAM = "Islam, Jia & Bruce, ICLR 2020"
SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)
SCIKIT_LEARN = ("china.jpg", "flower.jpg")


def photographs() -> list[Path]:
    """Return the photographs in scikit-image (13) and scikit-learn (2), without importing either.

    Raises:
        MissingError: if one of the packages is not installed.
    """
    scikit_image, scikit_learn = _package_folder("skimage") / "data", _package_folder("sklearn") / "datasets/images"
    return [scikit_image / name for name in SCIKIT_IMAGE] + [scikit_learn / name for name in SCIKIT_LEARN]


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingError(f"images 'photos' need the package {name}: pip install 'position-bench[offline]'")
    return Path(spec.origin).parent


def constant(rng: np.random.Generator, size: int, *, value: int) -> NDArray[np.uint8]:
    """Return an image of one grey value, uint8 [size, size, 3]."""
    import numpy as np

    return np.full((size, size, 3), value, np.uint8)


def noise(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Draw independent normal values, mean 0.5 and deviation 0.25, clipped to [0, 1]. uint8 [size, size, 3]."""
    import numpy as np

    return (rng.normal(0.5, 0.25, (size, size, 3)).clip(0, 1) * 255).round().astype(np.uint8)


@hookimpl
def posbench_images() -> Iterable[Images]:
    packages, lee = "scikit-image, scikit-learn", "Lee, Mumford & Huang, IJCV 2001"
    photos = "15 photographs from scikit-image and scikit-learn"
    natural = "dead leaves on a torus: natural statistics, no cue to position"
    sources: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("photos", photos, packages, {"photographs": photographs, "reference": "photographs"}),
        ("leaves", natural, lee, {"draw": dead_leaves, "torus": True, "reference": "null"}),
        ("black", "black images", ISLAM, {"draw": partial(constant, value=0), "torus": True}),
        ("white", "white images", ISLAM, {"draw": partial(constant, value=255), "torus": True}),
        ("noise", "independent normal values", ISLAM, {"draw": noise, "torus": True}),
    )
    for name, summary, source, options in sources:
        yield Images(name=name, summary=summary, version="1", source=source, **options)
