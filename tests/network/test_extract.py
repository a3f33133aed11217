"""Streamed extraction against a plain loop over the same network, one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from posbench.core.errors import PosbenchError
from posbench.data.crops import Crops, Pixels
from posbench.network import forward
from posbench.network.build import build
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Padding
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry

REGISTRY = load_registry()


def windows(pixels: Pixels) -> Crops:
    return Crops(pixels, tuple(map(str, range(len(pixels)))))


def some(count: int, side: int = 64) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


class Taps(nn.Module):
    """Answers with taps that a function makes of the images, and counts the images of each call."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.make = make
        self.calls: list[int] = []

    def forward(self, x: torch.Tensor) -> Any:
        self.calls.append(len(x))
        return self.make(x)


def passed(network: nn.Module, pixels: Pixels, taps: int = 1, **options: Any) -> Features:
    record = Backbone(name="made", summary="", version="1", build=lambda: network, taps=taps)
    return extract(ForwardPass(network, record), windows(pixels), **({"grid": 8} | options))


@pytest.mark.parametrize("padding", [None, "circular"])
@torch.no_grad()
def test_taps_are_those_of_a_plain_loop(padding: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forward.BATCH, "cpu", 4)
    record, pixels = REGISTRY.get(Backbone, "resnet18"), some(10)
    network = build(record, Weights("random:0", seed=0))
    strategy = REGISTRY.get(Padding, padding) if padding else None
    got = extract(ForwardPass(network, record, strategy), windows(pixels), grid=8)
    assert [tuple(tap.shape) for tap in got.taps] == [(10, 8, 8, 64), (10, 8, 8, 128), (10, 4, 4, 256), (10, 2, 2, 512)]
    plain = record.build().eval()
    plain.load_state_dict(network.state_dict())
    if padding:
        for module in plain.modules():
            # What torch itself offers, for convolutions; the pooling is given its wider map by hand.
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.padding_mode = "circular"
                module._reversed_padding_repeated_twice = [n for n in reversed(module.padding) for _ in (0, 1)]
        plain.maxpool = nn.Sequential(nn.CircularPad2d(1), nn.MaxPool2d(3, 2))  # type: ignore[assignment]
    for i, image in enumerate(pixels):
        x = (image.astype(np.float64) / 255 - record.mean) / record.std
        taps = plain(torch.from_numpy(x).float().permute(2, 0, 1)[None])
        for number, tap in enumerate(taps):
            expected = F.interpolate(tap, (8, 8), mode="bilinear", align_corners=True) if tap.shape[-1] > 8 else tap
            torch.testing.assert_close(got.taps[number][i], expected[0].permute(1, 2, 0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_every_image_passes_once(count: int) -> None:
    network, seen = Taps(lambda x: [x]), list[int]()
    got = passed(network, some(count, 8), progress=seen.append)
    assert network.calls == seen
    assert sum(seen) == count == len(got)
    assert len(seen) == -(-count // forward.BATCH["cpu"])


@pytest.mark.parametrize(("size", "batches"), [(112, [4, 1]), (224, [4, 1]), (316, [2, 2, 1]), (640, [1] * 5)])
def test_of_larger_images_fewer_pass_at_once(size: int, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forward.BATCH, "cpu", 4)
    network = Taps(lambda x: [x])
    passed(network, some(5, size))
    assert network.calls == batches


def test_pixels_are_normalised_per_channel() -> None:
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, 51
    got = passed(Taps(lambda x: [x]), pixels).taps[0][0, 0, 0]
    expected = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_each_tap_keeps_the_precision_that_the_network_gives_it() -> None:
    def mixed(x: torch.Tensor) -> list[torch.Tensor]:
        tap = F.avg_pool2d(x, 8)
        return [tap.bfloat16(), tap + 1, tap + 2, F.avg_pool2d(tap, 2).bfloat16()]

    got = passed(Taps(mixed), some(5), 4)
    assert [tap.dtype for tap in got.taps] == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    assert [tap.shape[3] for tap in got.merged().taps] == [3, 6, 3]
    torch.testing.assert_close(got.taps[2], got.taps[1] + 1)


def test_a_finer_tap_is_resized_corner_on_corner() -> None:
    ramp = torch.arange(15.0).expand(1, 1, 15, 15)
    got = passed(Taps(lambda x: [ramp]), some(1, 15)).taps[0][0, :, :, 0]
    # 15 cells onto 8 with the corners in place: every other one.
    assert got.tolist() == [pytest.approx([0, 2, 4, 6, 8, 10, 12, 14])] * 8


def test_bfloat16_stays_near_float32() -> None:
    record, pixels = REGISTRY.get(Backbone, "resnet18"), some(2)
    network = build(record, Weights("random:0", seed=0))
    full, half = (
        extract(ForwardPass(network, record, precision=precision), windows(pixels), grid=8)
        for precision in ("fp32", "bf16")
    )
    for a, b in zip(full.taps, half.taps, strict=True):
        assert (a.dtype, b.dtype) == (torch.float32, torch.bfloat16)
        assert float((a - b.float()).norm() / a.norm()) < 0.03


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("tap", [1, 2])
def test_a_tap_that_is_not_finite_is_named(value: float, tap: int) -> None:
    def make(x: torch.Tensor) -> list[torch.Tensor]:
        taps = [x.clone(), x.clone()]
        taps[tap - 1][-1, 1, 2, 3] = value
        return taps

    with pytest.raises(PosbenchError, match=f"'made': tap {tap} holds values that are not finite"):
        passed(Taps(make), some(2, 8), taps=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: [],
        lambda x: [x, x, x],
        lambda x: [x, None],
        lambda x: [x, x[0]],
        lambda x: [x, x[:1]],
        lambda x: {"first": x, "second": x},
    ],
)
def test_anything_but_the_promised_taps_is_an_error(make: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(PosbenchError, match="'made' must return 2 feature maps"):
        passed(Taps(make), some(2, 8), taps=2)


@pytest.fixture
def mixed() -> Features:
    """Five images with a tap at the grid and a coarser one."""
    generator = torch.Generator().manual_seed(0)
    return Features(tuple(torch.randn(5, side, side, c, generator=generator) for side, c in ((6, 2), (3, 4))), 6)


def test_aligned_features_are_channels_at_the_grid(mixed: Features) -> None:
    aligned = mixed.aligned()
    assert aligned.shape == (5, mixed.channels, 6, 6)
    assert torch.equal(aligned[:, :2], mixed.taps[0].permute(0, 3, 1, 2))
    coarse = mixed.taps[1].permute(0, 3, 1, 2)
    assert torch.allclose(aligned[:, 2:, ::5, ::5], coarse[:, :, ::2, ::2], atol=1e-6)
    # Cell 1 of 6 lies at 2/5 between the first two of 3, along each axis.
    between = (0.6 * coarse[:, :, 0] + 0.4 * coarse[:, :, 1])[..., :2] @ torch.tensor([0.6, 0.4])
    assert torch.allclose(aligned[:, 2:, 1, 1], between, atol=1e-6)


def test_parts_of_features(mixed: Features) -> None:
    assert mixed.of_taps([1]).taps[0] is mixed.taps[1]
    assert mixed.of_taps([1]).channels == 4
    assert torch.equal(mixed.of_images(slice(1, 3)).taps[0], mixed.taps[0][1:3])
    assert torch.equal(mixed.of_images([2, 0]).taps[0], mixed.taps[0][[2, 0]])
    assert mixed.of_images([1, 2]).taps[0].data_ptr() == mixed.taps[0][1:].data_ptr()
    assert len(mixed.of_images([])) == 0
    pieces = list(mixed.batches(2))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece.taps[1] for piece in pieces]), mixed.taps[1])
