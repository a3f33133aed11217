"""Maps as pictures: pixels at hand-worked places on the scale."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from posbench.report.pictures import data_uri


def pixels(uri: str) -> list[tuple[int, ...]]:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    return [tuple(one) for one in np.asarray(image).reshape(-1, 3).tolist()]


def test_the_scale_goes_from_dark_to_bright_and_ends_there() -> None:
    found = pixels(data_uri(np.array([[0.0, 1.0], [2.0, 5.0]], np.float32), 0.0, 2.0))
    colours = colormaps["viridis"](np.array([0, 128, 255, 255]), bytes=True)[:, :3]
    assert found == [tuple(one) for one in colours.tolist()]


def test_a_map_of_one_value_is_in_the_middle() -> None:
    (middle,) = set(pixels(data_uri(np.full((3, 3), 7.0, np.float32), 7.0, 7.0)))
    assert middle == tuple(colormaps["viridis"](np.array([128]), bytes=True)[0, :3].tolist())
