"""Images in memory and datasets as sources: equal pixels make equal sources."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import posbench
from posbench.core.errors import UsageError
from posbench.data.crops import read

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Photographs(Dataset[tuple[Image.Image, int]]):
    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[i % len(PIXELS)]), i


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from TENSOR


@pytest.mark.parametrize(
    "source",
    [
        TENSOR.float() / 255,
        TENSOR.double() / 255,
        TENSOR.contiguous(),
        TENSOR.numpy(),
        list(PIXELS),
        [Image.fromarray(pixels) for pixels in PIXELS],
        Photographs(),
        Stream(),
        TensorDataset(TENSOR, torch.arange(4)),
        TENSOR.flip(0),
    ],
    ids=["float", "double", "uint8", "array", "arrays", "pillow", "dataset", "stream", "tensor dataset", "reversed"],
)
def test_the_same_pixels_are_the_same_source(source: object) -> None:
    source_record, expected = posbench.images(source, name="mine"), posbench.images(TENSOR, name="mine")
    assert source_record.version == expected.version
    assert source_record.label == expected.label == f"pixels:mine@{source_record.version[:8]}"


def test_files_hold_nothing_that_differs_from_machine_to_machine() -> None:
    source_record = posbench.images(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), name="dot")
    assert source_record.photographs is not None
    [path] = source_record.photographs()
    assert path.read_bytes() == b"P6 1 1 255\n\0\0\0"


def test_other_pixels_are_another_source() -> None:
    other = TENSOR.clone()
    other[3, 2, 19, 29] ^= 1
    assert posbench.images(other).label != posbench.images(TENSOR).label


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_pixels_come_back_as_they_were(values: list[int]) -> None:
    tensor = torch.tensor(values, dtype=torch.uint8).reshape(1, 3, 2, 2)
    for source in (tensor, tensor.float() / 255):
        source_record = posbench.images(source)
        assert source_record.photographs is not None
        [path] = source_record.photographs()
        assert np.array_equal(np.asarray(read(path)), tensor[0].permute(1, 2, 0).numpy())


def test_files_go_with_the_record() -> None:
    source_record = posbench.images(TENSOR)
    assert source_record.photographs is not None
    folder = source_record.photographs()[0].parent
    assert len(list(folder.iterdir())) == 4
    del source_record
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(0, 3, 8, 8), "no image"),
        (torch.zeros(3, 8, 8), "expected images"),
        (torch.zeros(2, 1, 8, 8), "image 0 of 'images' has shape"),
        (torch.zeros(2, 3, 8, 8) - 0.1, "before normalisation"),
        (torch.full((2, 3, 8, 8), float("nan")), "before normalisation"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "int64"),
        (["a.png"], "a str"),
        (7, "not a int"),
    ],
)
def test_mistakes_are_told(source: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        posbench.images(source)


def test_a_name_must_fit() -> None:
    with pytest.raises(UsageError, match="no name"):
        posbench.images(TENSOR, name="my images")
