"""Photographs: decoding of each file format, and unreadable files."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from posbench.core.errors import UsageError
from posbench.data.photographs import read
from posbench.store.store import Store
from tests.conftest import Ran


def textured(folder: Path, count: int) -> Path:
    """Write a folder of noise photographs."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
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
    """Check CMYK: no ink is white, and cyan removes red."""
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


def odd_ones(folder: Path) -> set[str]:
    """Write files of every readable kind; return their stems."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    noise.convert("CMYK").save(folder / "ink.tif")
    noise.quantize(16).save(folder / "palette.png", transparency=1)
    noise.convert("RGBA").rotate(1).save(folder / "alpha.png")
    Image.fromarray(np.asarray(noise)[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.new("RGB", (1, 1), (1, 2, 3)).save(folder / "pixel.png")
    noise.rotate(2).save(folder / "moves.gif", save_all=True, append_images=[noise])
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.rotate(3).save(folder / "turned.jpg", exif=exif)
    noise.rotate(4).save(folder / os.fsdecode(b"caf\xe9.png"))
    return {"ink", "palette", "alpha", "sixteen", "pixel", "moves", "turned", "caf\\xe9"}


def claiming(side: int) -> bytes:
    """Return the start of a PNG file that declares this size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT" + bytes(9)


def broken_ones(folder: Path) -> dict[str, str]:
    """Write unreadable files; return their stems as shown, with the reasons."""
    for name, content in {
        "cut.jpg": encoded(".jpg")[:300],
        "empty.jpg": b"",
        "text.jpg": b"This is no picture.",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "bomb.png": claiming(60000),
        "large.png": claiming(13300),  # Pillow itself only warns of it
        "\x1b[31m\n.png": b"red",
    }.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "around").symlink_to("..", target_is_directory=True)
    (folder / "folder.png").mkdir()
    unknown = "cannot identify image file"
    return {
        "\\x1b[31m\\n": unknown,
        "bomb": "could be decompression bomb",
        "cut": "Truncated File Read",
        "empty": unknown,
        "large": "could be decompression bomb",
        "loop": "it is no regular file",
        "pipe": "it is no regular file",
        "script": unknown,
        "text": unknown,
    }


def test_a_few_files_that_cannot_be_read_are_left_out_and_many_end_the_run(
    posbench: Callable[..., Ran], recwarn: pytest.WarningsRecorder
) -> None:
    folder = textured(Path("p"), 163)
    good, bad = odd_ones(folder), broken_ones(folder)
    assert (len(good), len(bad)) == (8, 9)
    counts = ("--image-size", "44", "--train-count", "90", "--test-count", "90", "--targets", "H", "--metrics", "spc")
    run = ("run", "--backbones", "none", "--images", "p", *counts, "--quiet")
    # 9 of 180 are 5 %, as many as there may be.
    ran = posbench(*run)
    assert ran.code == 0, ran.err
    assert not recwarn.list
    [warning] = ran.err.splitlines()
    assert re.match(r"posbench: warning: 9 images of folder:p@\w{8} cannot be read and are left out: ", warning)
    with Store(Path("posbench.db")) as store:
        [record] = store.records()
        provenance = store.provenance(record.run_id)
    assert record.outcome.status == "ok"
    left_out = [re.fullmatch(r"(.+)@\w{8} \((.+)\)", line) for line in provenance["images left out"]]
    assert {match[1]: match[2] for match in left_out if match}.keys() == bad.keys()
    for match in left_out:
        assert match
        assert bad[match[1]] in match[2]
        assert match[0] in warning
    used = {name.rpartition("@")[0] for names in provenance["photographs"].values() for name in names}
    assert used == good | {f"{i:03}" for i in range(163)}

    # One more is too many.
    (folder / "more.jpg").write_bytes(b"nor is this")
    before = Path("posbench.db").read_bytes()
    ran = posbench(*run)
    assert (ran.code, ran.out) == (2, "")
    [line] = ran.err.splitlines()
    assert re.match(
        r"posbench: 10 of the 181 images of folder:p@\w{8} cannot be read, more than 5%: remove or replace ", line
    )
    for name in (*bad, "more"):
        assert f"{name}@" in line
    assert Path("posbench.db").read_bytes() == before
