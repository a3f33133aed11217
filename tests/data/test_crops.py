"""Crops: the split by photograph, and the place and scale of each crop."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from posbench.core.errors import ComponentError, UsageError
from posbench.data.crops import MARGIN, TEST, TRAIN, centre_crop, folds, load_crops, random_crop, split_photographs
from posbench.data.folder import folder_images
from posbench.plugin.components import Images
from posbench.plugin.registry import load_registry
from tests.crops import train_test_crops


def fill(folder: Path, count: int, first: int = 0, side: int = 24) -> Images:
    """Make a folder of photographs, each of one grey value of its own."""
    folder.mkdir(exist_ok=True)
    for value in range(first, first + count):
        Image.new("L", (side, side), 10 + value).save(folder / f"{value}.png")
    return folder_images(folder)


def values(pixels: NDArray[np.uint8]) -> list[int]:
    """Return the grey value of each crop of `fill`'s photographs."""
    assert (pixels == pixels[:, :1, :1, :1]).all()
    return [int(value) for value in pixels[:, 0, 0, 0]]


def drawn(name: str = "static", **more: Any) -> Images:
    def draw(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

    record: dict[str, Any] = {"name": name, "summary": "", "version": "1", "draw": draw}
    return Images(**(record | more))


@pytest.mark.parametrize(("photographs", "n_train", "n_test"), [(2, 1, 1), (3, 8, 8), (10, 30, 12), (11, 2, 3)])
def test_one_source_is_split_by_photograph(photographs: int, n_train: int, n_test: int, tmp_path: Path) -> None:
    source = fill(tmp_path / "p", photographs)
    train, test = train_test_crops(source, source, n_train, n_test, 16)
    assert train.pixels.shape == (n_train, 16, 16, 3)
    assert test.pixels.shape == (n_test, 16, 16, 3)
    assert not set(train.photographs) & set(test.photographs)
    assert not set(values(train.pixels)) & set(values(test.pixels))
    held_out = min(n_test, max(1, round(photographs / 2)))
    assert len(set(test.photographs)) == held_out
    assert len(set(train.photographs)) == min(n_train, photographs - held_out)


def test_the_names_tell_which_photograph_each_window_is_of(tmp_path: Path) -> None:
    source = fill(tmp_path / "p", 5)
    for crops in train_test_crops(source, source, 9, 4, 16):
        assert len(crops) == len(crops.pixels)
        for name, value in zip(crops.photographs, values(crops.pixels), strict=True):
            assert name.partition("@")[0] == str(value - 10)
            assert len(name.partition("@")[2]) == 8


def test_photographs_take_turns(tmp_path: Path) -> None:
    source = fill(tmp_path / "p", 6)
    train, _ = train_test_crops(source, source, 7, 3, 16)
    first, third, second = dict.fromkeys(train.photographs)
    # Assigned as 1 2 3 1 2 3 1; every other photograph's images stand together.
    assert train.photographs == (first, third, first, third, first, second, second)


def test_a_photograph_twice_under_two_names_is_one(tmp_path: Path) -> None:
    source = fill(tmp_path / "p", 4)
    copies = [tmp_path / "p" / f"copy of {i}.png" for i in range(4)]
    for i, copy in enumerate(copies):
        copy.write_bytes((tmp_path / "p" / f"{i}.png").read_bytes())
    source = folder_images(tmp_path / "p")
    train, test = train_test_crops(source, source, 8, 8, 16)
    assert len(set(values(train.pixels)) | set(values(test.pixels))) == 4
    assert not set(values(train.pixels)) & set(values(test.pixels))


def test_a_photograph_in_both_sources_serves_training_alone(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", 3), fill(tmp_path / "b", 4, first=2)
    train, test = train_test_crops(first, second, 6, 6, 16)
    assert set(values(train.pixels)) == {10, 11, 12}
    assert set(values(test.pixels)) == {13, 14, 15}


@pytest.mark.parametrize(
    ("photographs", "n_train", "n_test"), [(2, 6, 6), (3, 9, 8), (7, 30, 4), (7, 4, 30), (15, 64, 64)]
)
def test_the_images_of_a_fold_stand_together(photographs: int, n_train: int, n_test: int, tmp_path: Path) -> None:
    source = fill(tmp_path / "p", photographs)
    shared, _ = split_photographs(source, source, n_test, cross_fitted=True)
    train, test = (load_crops(source, shared, role, count, 16) for role, count in ((TRAIN, n_train), (TEST, n_test)))
    of_train, of_test = folds(train, test)
    assert of_train.tolist() == sorted(of_train)
    if n_train >= photographs:
        assert of_test.tolist() == sorted(of_test)
        shares = [
            len({name for name, fold in zip(train.photographs, of_train, strict=True) if fold == i}) for i in (0, 1)
        ]
        assert shares == [-(-photographs // 2), photographs // 2]
    # Names go with their pixels, and photographs take turns.
    for crops in (train, test):
        grey = dict(zip(crops.photographs, values(crops.pixels), strict=True))
        assert [grey[name] for name in crops.photographs] == values(crops.pixels)
        counts = Counter(crops.photographs).values()
        assert max(counts) - min(counts) <= 1


def test_two_folders_with_the_same_photographs_leave_none(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", 3), fill(tmp_path / "b", 2)
    with pytest.raises(UsageError, match="leave no photograph for testing that training does not use"):
        train_test_crops(first, second, 6, 6, 16)


def test_one_photograph_cannot_serve_both_roles(tmp_path: Path) -> None:
    source = fill(tmp_path / "a", 1)
    (tmp_path / "a" / "copy.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    source = folder_images(tmp_path / "a")
    with pytest.raises(UsageError, match="give at least two different photographs"):
        train_test_crops(source, source, 6, 6, 16)


def test_photographs_and_drawn_images_mix(tmp_path: Path) -> None:
    train, test = train_test_crops(fill(tmp_path / "a", 1), drawn(), 2, 2, 16)
    assert values(train.pixels) == [10, 10]
    assert test.photographs == ("static-test-0", "static-test-1")


def test_the_same_files_give_the_same_windows_whatever_they_are_called(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for i in range(6):
        image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        image.save(tmp_path / "a" / f"{i}.png")
        (tmp_path / "b" / f"{9 - i}.png").write_bytes((tmp_path / "a" / f"{i}.png").read_bytes())
    first, second = (
        train_test_crops(s, s, 9, 5, 16) for s in (folder_images(tmp_path / "a"), folder_images(tmp_path / "b"))
    )
    for ours, theirs in zip(first, second, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert [name.partition("@")[2] for name in ours.photographs] == [
            name.partition("@")[2] for name in theirs.photographs
        ]


def test_drawn_images_are_their_own_photographs_and_seeded_by_role() -> None:
    first, second = train_test_crops(drawn(), drawn(), 3, 4, 8), train_test_crops(drawn(), drawn(), 5, 2, 8)
    train, test = first
    assert train.photographs == ("static-train-0", "static-train-1", "static-train-2")
    assert test.photographs == ("static-test-0", "static-test-1", "static-test-2", "static-test-3")
    assert len(np.unique(np.concatenate([train.pixels, test.pixels]), axis=0)) == 7
    # More of them begin with the same.
    assert np.array_equal(second[0].pixels[:3], train.pixels)
    assert np.array_equal(second[1].pixels, test.pixels[:2])


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.float64)]
)
def test_a_source_that_draws_something_else_is_named(image: NDArray[Any]) -> None:
    source = drawn("odd", draw=lambda rng, size: image)
    with pytest.raises(ComponentError, match=r"images 'odd': .*drew .*; expected uint8 \(8, 8, 3\)"):
        train_test_crops(source, source, 1, 1, 8)


def ramp(width: int, height: int) -> Image.Image:
    """Return a photograph whose red and green are the column and the row of each pixel."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


SIZE, MARGIN_HERE = 28, MARGIN * 28 / 224  # 8 pixels


def crop(image: Image.Image, seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    return random_crop(image, size, np.random.default_rng(seed))[0]


def place_of(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return left, top and side of a crop of `ramp`; pixel centres lie half a pixel of the crop within its edges."""
    spans = [(float(pixels[..., c].min()), float(pixels[..., c].max())) for c in (0, 1)]
    side = (spans[0][1] - spans[0][0]) * SIZE / (SIZE - 1)
    left, top = (low + 0.5 - side / SIZE / 2 for low, _ in spans)
    return left, top, side


def test_crops_keep_their_margin_at_every_scale() -> None:
    image = ramp(240, 160)
    places = [place_of(crop(image, seed)) for seed in range(300)]
    left, top, side = np.array(places).T
    # Values are rounded to whole pixels, at either end.
    margin = MARGIN_HERE * side / SIZE
    assert (left >= margin - 1.5).all()
    assert (left + side <= 240 - margin + 1.5).all()
    assert (top >= margin - 1.5).all()
    assert (top + side <= 160 - margin + 1.5).all()


def test_scales_are_log_uniform_and_places_reach_every_corner() -> None:
    image = ramp(240, 240)
    places = [place_of(crop(image, seed)) for seed in range(400)]
    left, top, side = np.array(places).T
    # From its own pixels to the smallest scale that leaves 8 + 28 + 8: sides from 28 to 240·28/44.
    smallest, largest = np.log(SIZE), np.log(240 * SIZE / 44)
    logs = np.log(side)
    assert logs.min() >= smallest - 0.06
    assert logs.max() <= largest + 0.02
    spread = (largest - smallest) / 12**0.5
    assert logs.mean() == pytest.approx((smallest + largest) / 2, abs=4 * spread / 20 + 0.01)
    assert logs.std() == pytest.approx(spread, rel=0.1)
    # The place, as a share of the room there is, is uniform: a quarter of all windows lies in each quarter.
    room = 240 - side - 2 * MARGIN_HERE * side / SIZE
    roomy = room > 60
    share_x, share_y = ((at - MARGIN_HERE * side / SIZE)[roomy] / room[roomy] for at in (left, top))
    for right, low in product((False, True), repeat=2):
        quarter = ((share_x > 0.5) == right) & ((share_y > 0.5) == low)
        assert quarter.mean() == pytest.approx(0.25, abs=4 * (0.1875 / roomy.sum()) ** 0.5)


def test_a_window_is_the_middle_of_what_surrounds_it() -> None:
    for seed in range(20):
        pixels, with_surroundings = random_crop(ramp(240, 160), SIZE, np.random.default_rng(seed))
        larger = with_surroundings()
        assert larger.shape == (SIZE + 16, SIZE + 16, 3)
        assert np.array_equal(centre_crop(larger, SIZE, SIZE), pixels)
        # Columns and rows go on evenly from what surrounds the window into it, up to rounding: it is in its place.
        for channel, axis in ((0, 1), (1, 0)):
            steps = np.diff(larger[..., channel].astype(int), axis=axis)
            assert steps.max() - steps.min() <= 2


def test_a_photograph_just_large_enough_gives_its_centre() -> None:
    image = ramp(44, 44)
    for seed in range(5):
        pixels = crop(image, seed)
        assert np.array_equal(pixels, np.asarray(image)[8:36, 8:36])


def test_a_photograph_too_small_for_the_margin_keeps_its_own_pixels_and_leaves_what_it_can() -> None:
    image = ramp(38, 100)
    tops = set()
    for seed in range(40):
        pixels = crop(image, seed)
        # Across, half of the ten spare pixels on either side; down, the margin of 8.
        left, top, side = place_of(pixels)
        assert left == pytest.approx(5, abs=0.6)
        assert side == pytest.approx(SIZE, abs=1.1)
        assert 8 - 1 <= top <= 100 - 8 - SIZE + 1
        tops.add(round(top))
    assert len(tops) > 15


def test_a_photograph_smaller_than_the_window_is_enlarged() -> None:
    pixels = crop(ramp(14, 14), 0)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.array_equal(pixels, np.asarray(ramp(14, 14).resize((SIZE, SIZE), Image.Resampling.BICUBIC)))


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.integers(0, 2**32))
def test_any_photograph_gives_a_window(width: int, height: int, size: int, seed: int) -> None:
    pixels = crop(Image.new("RGB", (width, height), (9, 8, 7)), seed, size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_crops_of_one_photograph_differ(tmp_path: Path) -> None:
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    folder = folder_images(tmp_path)
    train, _ = train_test_crops(folder, folder, 6, 1, 16)
    assert len({image.tobytes() for image in train.pixels}) == 6


def test_equal_images_are_one_photograph() -> None:
    registry = load_registry()
    train, test = train_test_crops(registry.get(Images, "black"), registry.get(Images, "noise"), 5, 4, 32)
    assert set(train.photographs) == {"black-train-0"}
    assert not train.pixels.any()
    assert len(set(test.photographs)) == 4
    white, _ = train_test_crops(registry.get(Images, "white"), registry.get(Images, "black"), 1, 1, 32)
    assert (white.pixels == 255).all()


def test_noise_is_independent_between_cells_and_channels() -> None:
    noise = load_registry().get(Images, "noise")
    (images, _) = train_test_crops(noise, noise, 20, 1, 64)
    values = images.pixels / 255
    # Clipping at two standard deviations moves the spread from .25 to .24.
    assert values.mean() == pytest.approx(0.5, abs=0.004)
    assert values.std() == pytest.approx(0.24, abs=0.005)
    standard = (values - values.mean()) / values.std()
    for other in (np.roll(standard, 1, 1), np.roll(standard, 1, 2), np.roll(standard, 1, 3)):
        assert abs((standard * other).mean()) < 0.01
