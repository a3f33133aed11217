"""Photographs: what is read of each kind of file, and which files are left out."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from posbench.errors import UsageError
from posbench.folders import folder_images
from posbench.photographs import read, sift
from posbench.store import Store
from tests.conftest import Ran


def textured(folder: Path, count: int) -> Path:
    """A folder of photographs of noise."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


RED, BLUE = [255, 0, 0], [0, 0, 255]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[RED, BLUE]]),
        (2, [[BLUE, RED]]),
        (3, [[BLUE, RED]]),
        (4, [[RED, BLUE]]),
        (5, [[RED], [BLUE]]),
        (6, [[RED], [BLUE]]),
        (7, [[BLUE], [RED]]),
        (8, [[BLUE], [RED]]),
    ],
)
def test_photographs_stand_upright(orientation: int, upright: list[list[list[int]]], tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[RED, BLUE]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.asarray(read(tmp_path / "a.png")).tolist() == upright


def test_sixteen_bits_of_grey_become_eight(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 128 * 257, 254 * 257 + 256, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.asarray(read(tmp_path / "a.png"))[..., 0].tolist() == [[0, 1, 128, 254, 255]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255] * 3),
        ("L", 7, [7] * 3),
        ("LA", (7, 0), [7] * 3),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
        ("P", 0, [0] * 3),
    ],
)
def test_every_mode_becomes_three_channels(mode: str, colour: Any, expected: list[int], tmp_path: Path) -> None:
    Image.new(mode, (3, 2), colour).save(tmp_path / "a.png")
    assert np.asarray(read(tmp_path / "a.png")).tolist() == [[expected] * 3] * 2


def encoded(suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    across, down = np.meshgrid(np.arange(20), np.arange(10))
    pixels = np.stack([across, down, across + down], -1).astype(np.uint8)
    Image.fromarray(pixels).save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue()


SUFFIXES = (".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".ppm")
HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 60000, 60000, 8, 2, 0, 0, 0, 0x5B6B8D48)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded(".jpg")[:300], encoded(".png")[:60], HUGE],
    ids=["empty", "text", "cut JPEG", "cut PNG", "bomb"],
)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"image '.*a\.png' cannot be read \(.*\): remove or replace it") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "gone.png")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    suffix=st.sampled_from(SUFFIXES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    cut_at=st.one_of(st.none(), st.integers(0, 400)),
)
def test_a_damaged_file_is_an_image_or_a_usage_error(
    suffix: str, changes: list[tuple[int, int]], cut_at: int | None, tmp_path: Path
) -> None:
    content = bytearray(encoded(suffix))
    for at, value in changes:
        content[at % len(content)] = value
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content[:cut_at])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read(path)
        except UsageError:
            return
    assert image.mode == "RGB"


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    with pytest.raises(UsageError, match="range no file states"):
        read(path)


def test_what_lies_in_ink_becomes_light(tmp_path: Path) -> None:
    """Cyan, magenta, yellow and black: none is white, cyan alone takes red away."""
    for name, ink, expected in (("white", (0, 0, 0, 0), [255] * 3), ("cyan", (255, 0, 0, 0), [0, 255, 255])):
        Image.new("CMYK", (4, 4), ink).save(tmp_path / f"{name}.tif")
        assert np.asarray(read(tmp_path / f"{name}.tif"))[0, 0].tolist() == expected


def test_of_an_animation_the_first_image_is_read(tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    for name in ("a.gif", "a.png"):
        assert np.asarray(read(tmp_path / name))[0, 0].tolist() == RED


def test_a_palette_is_looked_up_whatever_is_transparent(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png", transparency=1)
    assert np.asarray(read(tmp_path / "a.png")).tolist() == [[BLUE, BLUE]]


def test_one_pixel_is_a_photograph(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    [photograph] = sift(folder_images(tmp_path)).photographs
    assert np.asarray(read(photograph.path)).tolist() == [[[1, 2, 3]]]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    textured(tmp_path / "p", 2)
    os.mkfifo(tmp_path / "p" / "pipe.png")
    (tmp_path / "p" / "loop.png").symlink_to("loop.png")
    (tmp_path / "p" / "around").symlink_to("..", target_is_directory=True)
    assert [one.path.name for one in sift(folder_images(tmp_path / "p")).photographs] in (
        ["000.png", "001.png"],
        ["001.png", "000.png"],
    )


def test_a_name_that_is_no_text_can_be_stored(tmp_path: Path, tiny: str, posbench: Callable[..., Ran]) -> None:
    textured(tmp_path / "p", 3)
    (tmp_path / "p" / "000.png").rename(tmp_path / "p" / os.fsdecode(b"caf\xe9.png"))
    options = ("--images", str(tmp_path / "p"), "--image-size", "64", "--train-count", "4", "--test-count", "4")
    ran = posbench("run", "--backbones", tiny, "--paddings", "zero", *options, "--csv", "-")
    assert ran.code == 0, ran.err
    with Store(Path("posbench.db")) as store:
        record = next(iter(store.records()))
        assert any(name.startswith("caf\\xe9@") for name in store.provenance(record.run_id)["photographs"]["test"])


BROKEN = {"empty.jpg": b"", "text.jpg": b"This is no picture.", "cut.png": encoded(".png")[:60], "bomb.png": HUGE}


def test_a_few_files_that_cannot_be_read_are_left_out_and_told(
    tmp_path: Path, tiny: str, posbench: Callable[..., Ran]
) -> None:
    textured(tmp_path / "p", 77)
    for name, content in BROKEN.items():
        (tmp_path / "p" / name).write_bytes(content)
    options = ("--images", str(tmp_path / "p"), "--image-size", "64", "--train-count", "8", "--test-count", "8")
    ran = posbench("run", "--backbones", tiny, "--paddings", "zero,circular", *options, "--quiet", "--csv", "rows.csv")
    assert ran.code == 0, ran.err
    [warning] = [line for line in ran.err.splitlines() if "left out" in line]
    assert warning.startswith("posbench: warning: 4 images of folder:p@")
    with Store(Path("posbench.db")) as store:
        for record in store.records():
            assert record.outcome.status == "ok"
            provenance = store.provenance(record.run_id)
            assert [Path(line.split("@")[0]).name for line in provenance["images left out"]] == [
                "bomb",
                "cut",
                "empty",
                "text",
            ]
            read_ones = {name for names in provenance["photographs"].values() for name in names}
            assert not any(name.split("@")[0] in ("bomb", "cut", "empty", "text") for name in read_ones)


def test_many_files_that_cannot_be_read_end_the_run(tmp_path: Path, tiny: str, posbench: Callable[..., Ran]) -> None:
    textured(tmp_path / "p", 56)
    for i in range(3):
        (tmp_path / "p" / f"bad{i}.jpg").write_bytes(b"no picture" + bytes([i]))
    options = ("--images", str(tmp_path / "p"), "--image-size", "64", "--train-count", "8", "--test-count", "8")
    ran = posbench("run", "--backbones", tiny, *options, "--quiet")
    assert ran.code == 2
    assert ran.out == ""
    line = ran.err.splitlines()[-1]
    assert line.startswith("posbench: 3 of the 59 images of folder:p@")
    assert "cannot be read, more than 5%: remove or replace bad0@" in line
    assert "bad1@" in line
    assert "bad2@" in line
    with Store(Path("posbench.db")) as store:
        assert not list(store.records())
    # One fewer is 2 of 58, which is not too many.
    (tmp_path / "p" / "bad0.jpg").unlink()
    assert posbench("run", "--backbones", tiny, "--paddings", "zero", *options, "--quiet").code == 0
