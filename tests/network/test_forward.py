"""Forward passes that drop the cells padding reaches, and passes with the true surroundings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from posbench.core.errors import Inapplicable
from posbench.data.crops import Crops, Pixels, centre_crop
from posbench.network.build import build, normalise
from posbench.network.forward import ForwardPass
from posbench.network.padding import apply_padding
from posbench.network.receptive_field import ReceptiveFieldTracer
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Padding
from posbench.plugin.registry import load_registry
from tests.crops import train_test_crops

REGISTRY = load_registry()
VALID, SURROUND = (REGISTRY.get(Padding, name) for name in ("valid", "surround"))
#: Every strategy that pads.
PADDING = [name for name in REGISTRY.names("padding") if name not in ("valid", "surround")]


def some(count: int, side: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def crops(pixels: Pixels, surrounded: tuple[Pixels, ...] = ()) -> Crops:
    return Crops(pixels, tuple(f"photo-{i}" for i in range(len(pixels))), surrounded)


def made(make: Callable[[], nn.Module], taps: int = 1) -> tuple[nn.Module, Backbone]:
    torch.manual_seed(0)
    network = make().eval().requires_grad_(False)
    return network, Backbone(name="made", summary="", version="1", build=make, taps=taps)


def timm(name: str) -> tuple[nn.Module, Backbone]:
    record = REGISTRY.get(Backbone, name)
    return build(record, Weights("random:0", seed=0)), record


def all_taps(run: ForwardPass, images: Crops) -> list[torch.Tensor]:
    """Return the taps of all crops, in their order."""
    batches = list(run.batches(images))
    order = np.argsort(np.concatenate([numbers for numbers, _ in batches]))
    return [torch.cat(parts)[order] for parts in zip(*(taps for _, taps in batches), strict=True)]


def test_the_noise_of_a_stochastic_padding_is_decided_by_the_images_alone() -> None:
    drawn: list[torch.Tensor] = []

    def noise(x: torch.Tensor, sides: Any) -> torch.Tensor:
        drawn.append(torch.randn(len(x), 256))
        return nn.functional.pad(x, sides)

    padding = Padding(name="noise", summary="", version="1", pad=noise, stochastic=True)
    run = ForwardPass(*made(Residual, 2), padding)

    def noise_of(pixels: Pixels) -> torch.Tensor:
        """Return the noise drawn for the images, over all batches and layers."""
        drawn.clear()
        all_taps(run, crops(pixels))
        return torch.cat(drawn)

    state = torch.random.get_rng_state()
    first, other = noise_of(some(16, 32)), noise_of(some(16, 32, seed=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(noise_of(some(16, 32)), first)
    assert len(first) == 3 * 16
    # Of independent noise a correlation has a standard error of 1/16; of 4560 the largest is below six of them.
    assert float(torch.corrcoef(torch.cat([first, other])).fill_diagonal_(0).abs().max()) < 6 / 16


class Residual(nn.Module):
    """Two taps, a strided block with a shortcut between them, as ResNets have it; perhaps with a gate."""

    def __init__(self, gated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.two = nn.Conv2d(6, 6, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.gated = gated

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        stem = self.stem(x).relu()
        main = self.two(self.one(stem).relu())
        if self.gated:
            main = main * main.mean((2, 3), keepdim=True)
        return [stem, main + self.shortcut(stem)]


def without_padding(network: Residual, image: torch.Tensor) -> list[torch.Tensor]:
    """The same by hand, in float64: every convolution unpadded, and the shortcut cropped to the main path's cells."""

    def convolve(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(layer, nn.Conv2d)
        return nn.functional.conv2d(x, layer.weight.double(), layer.bias.double(), layer.stride)  # type: ignore[union-attr, arg-type]

    stem = convolve(network.stem, image.double()).relu()  # cell i here is cell i + 1 of the padded map
    # The padded network centres its strided windows on even cells: 0, 2, 4 …; the first that fits is 2, cells 1 to 3.
    main = convolve(network.two, convolve(network.one, stem).relu())  # starts at cells 1, then 2, of the strided map
    if network.gated:
        main = main * main.mean((2, 3), keepdim=True)
    shortcut = convolve(network.shortcut, stem[..., 1:, 1:])  # cells 2, 4 …, which are 1, 2 … of the strided map
    shortcut = shortcut[..., 1 : 1 + main.shape[2], 1 : 1 + main.shape[3]]
    return [stem, main + shortcut]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("side", [16, 17])
def test_valid_is_convolution_without_padding_cropped_to_common_cells(side: int, gated: bool) -> None:
    network, record = made(lambda: Residual(gated), taps=2)
    images = crops(some(3, side))
    run = ForwardPass(network, record, VALID)
    assert run.prepare(images) == ""
    expected = without_padding(network, normalise(torch.from_numpy(images.pixels), record))  # type: ignore[arg-type]
    for got, wanted in zip(all_taps(run, images), expected, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [name for name in PADDING if name != "zero"])
def test_cells_that_padding_does_not_reach_are_the_same_under_all(padding: str) -> None:
    network, record = timm("resnet18")
    x, size = normalise(torch.from_numpy(some(2, 256)), record), 256
    with torch.inference_mode():
        with ReceptiveFieldTracer(network, size) as tracer:
            native = network(tracer.mark(x))
        with apply_padding(REGISTRY.get(Padding, padding), network):
            other = network(x)
    free = [tracer.receptive_field(tap).padding_free(size, tap.shape) for tap in native]  # type: ignore[union-attr]
    for (rows, columns), tap, padded in zip(free[:3], native, other, strict=False):
        inner = tap[..., rows, columns]
        assert inner.numel()
        torch.testing.assert_close(padded[..., rows, columns], inner, rtol=1e-4, atol=1e-4 * float(inner.abs().max()))
        # Beside them, position by position, there is one that padding did change.
        edge = slice(rows.start - 1, rows.stop), slice(columns.start - 1, columns.stop)
        assert not torch.allclose(padded[(..., *edge)], tap[(..., *edge)], rtol=1e-4)


def test_a_tap_without_free_cells_names_the_size_that_has_some() -> None:
    network, record = timm("resnet18")
    with pytest.raises(Inapplicable) as caught:
        ForwardPass(network, record, VALID).prepare(crops(some(1, 224)))
    assert str(caught.value) == "padding reaches every cell of tap 4 at 224 px: give --image-size 442 or more"
    for size, cells in ((441, 0), (442, 1), (512, 3)):
        images = crops(some(1, size))
        if cells:
            assert ForwardPass(network, record, VALID).prepare(images) == ""
            assert [tap.shape[-2:] for tap in all_taps(ForwardPass(network, record, VALID), images)][-1] == (
                cells,
                cells,
            )
        else:
            with pytest.raises(Inapplicable, match="442"):
                ForwardPass(network, record, VALID).prepare(images)


def test_a_gate_without_free_cells_is_found_too() -> None:
    network, record = timm("mobilenetv3_small_050")
    with pytest.raises(Inapplicable, match=r"padding reaches every cell of .* give --image-size \d+ or more") as caught:
        ForwardPass(network, record, VALID).prepare(crops(some(1, 64)))
    (size,) = re.findall(r"--image-size (\d+)", str(caught.value))
    assert ForwardPass(network, record, VALID).prepare(crops(some(1, int(size)))) == ""
    with pytest.raises(Inapplicable):
        ForwardPass(network, record, VALID).prepare(crops(some(1, int(size) - 1)))


@pytest.mark.parametrize(("name", "size", "enough"), [("tf_mobilenetv3_small_100", 112, 640), ("dla34", 128, 639)])
def test_the_smallest_size_where_padding_or_the_network_depends_on_the_size(name: str, size: int, enough: int) -> None:
    # TensorFlow-style padding is another at odd sizes, and DLA refuses most.
    network, record = timm(name)
    with pytest.raises(Inapplicable, match=f"--image-size {enough} or more"):
        ForwardPass(network, record, VALID).prepare(crops(some(1, size)))
    assert ForwardPass(network, record, VALID).prepare(crops(some(1, enough))) == ""
    with pytest.raises((Inapplicable, RuntimeError)):
        ForwardPass(network, record, VALID).prepare(crops(some(1, enough - 1)))


def test_attention_over_cells_is_not_cut_off_silently() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            y = self.conv(x)
            return [y * y.sort(dim=2).values]  # keeps the shape, and mixes every cell of a column

    network, record = made(Attention)
    with pytest.raises(Inapplicable, match="padding reaches all cells of tap 1 in ways that cannot be cut off"):
        ForwardPass(network, record, VALID).prepare(crops(some(1, 16)))


@pytest.mark.parametrize("border", [VALID, SURROUND])
def test_a_network_whose_cells_cannot_be_followed_is_refused(border: Padding) -> None:
    class Patches(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x.flatten(2).view(len(x), 3, x.shape[3], x.shape[2])]

    network, record = made(Patches)
    pixels = some(1, 64)
    with pytest.raises(Inapplicable, match="not known which pixels tap 1 depends on"):
        ForwardPass(network, record, border).prepare(crops(pixels, (some(1, 96)[0],)))


def framed(whole: Pixels, size: int) -> Crops:
    """Return the central crops of larger images, with these as surroundings."""
    return crops(np.stack([centre_crop(image, size, size) for image in whole]), tuple(whole))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (4, 12)])
def test_surround_is_the_larger_image_at_the_same_place(rows: int, columns: int) -> None:
    network, record = made(Residual, taps=2)
    whole = np.random.default_rng(0).integers(0, 256, (3, 32 + 2 * rows, 32 + 2 * columns, 3), dtype=np.uint8)
    pixels = np.stack([centre_crop(image, 32, 32) for image in whole])
    run = ForwardPass(network, record, SURROUND)
    images = crops(pixels, tuple(whole))
    assert run.prepare(images) == ("margin 8 px" if rows == 8 else "margin 4 to 12 px, as photographs allow")
    with torch.inference_mode():
        full = network(normalise(torch.from_numpy(whole), record))
    for got, tap, stride in zip(all_taps(run, images), full, (1, 2), strict=True):
        side, top, left = 32 // stride, rows // stride, columns // stride
        torch.testing.assert_close(got, tap[..., top : top + side, left : left + side], rtol=1e-4, atol=1e-4)


def test_enough_margin_makes_padding_invisible() -> None:
    # The receptive field reaches 5 pixels beyond the window; with 8 around it, nothing that padding holds arrives.
    network, record = made(Residual, taps=2)
    run = ForwardPass(network, record, SURROUND)
    images = framed(some(2, 48), 32)
    assert "beyond" not in run.prepare(images)
    other = ForwardPass(network, record, Padding(name="both", summary="", version="1", border="surround", pad=ones))
    for a, b in zip(all_taps(run, images), all_taps(other, images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def ones(x: torch.Tensor, sides: Any) -> torch.Tensor:
    return nn.functional.pad(x, sides, value=1.0)


def test_windows_of_one_set_may_have_different_margins() -> None:
    network, record = made(Residual, taps=2)
    pieces = [some(1, side, seed)[0] for seed, side in enumerate((48, 40, 48, 37, 48))]
    images = crops(np.stack([centre_crop(piece, 32, 32) for piece in pieces]), tuple(pieces))
    run = ForwardPass(network, record, SURROUND)
    assert run.prepare(images) == (
        "margin 2 to 8 px, as photographs allow; the network sees up to 4 px beyond the window"
    )
    together = all_taps(run, images)
    for i, piece in enumerate(pieces):
        alone = all_taps(run, crops(images.pixels[i : i + 1], (piece,)))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b[0], rtol=1e-5, atol=1e-5)


def test_a_photograph_without_room_is_named() -> None:
    network, record = made(Residual, taps=2)
    pieces = (some(1, 96)[0], some(1, 65)[0])
    images = crops(np.stack([centre_crop(piece, 64, 64) for piece in pieces]), pieces)
    with pytest.raises(Inapplicable, match="photograph photo-1 leaves less than 2 px"):
        ForwardPass(network, record, SURROUND).prepare(images)


def test_a_margin_smaller_than_the_networks_step_names_the_size() -> None:
    network, record = timm("resnet18")
    with pytest.raises(Inapplicable) as caught:
        ForwardPass(network, record, SURROUND).prepare(framed(some(1, 100), 64))
    assert str(caught.value) == (
        "at 64 px the margin is 18 px, less than one step of the network (32 px): give --image-size 112 or more"
    )


def test_gates_that_see_the_margin_are_told() -> None:
    network, record = made(lambda: Residual(gated=True), taps=2)
    note = ForwardPass(network, record, SURROUND).prepare(framed(some(1, 48), 32))
    assert note == "margin 8 px; 1 operation sees all of the margin, the first in the network itself"


def test_normalisation_over_the_margin_is_told() -> None:
    def make() -> nn.Module:
        class Taps(nn.Sequential):
            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [super().forward(x)]

        return Taps(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(1, 4))

    network, record = made(make)
    note = ForwardPass(network, record, SURROUND).prepare(framed(some(1, 48), 32))
    assert note == "margin 8 px; 1 operation sees all of the margin, the first in 1"
    with pytest.raises(Inapplicable, match="in ways that cannot be cut off"):
        ForwardPass(network, record, VALID).prepare(crops(some(1, 32)))


def test_a_strategy_that_answers_operations_refuses_a_pad_that_none_reads() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(nn.functional.pad(x, (1, 1, 1, 1)).relu())]

    network, record = made(Apart)
    images = crops(some(1, 16))
    with pytest.raises(Inapplicable, match="pads a map that no convolution or pooling reads as it is, and partial"):
        ForwardPass(network, record, REGISTRY.get(Padding, "partial")).prepare(images)
    assert ForwardPass(network, record, REGISTRY.get(Padding, "reflect")).prepare(images) == ""


def test_a_network_with_three_dimensional_convolutions_is_built_and_refused() -> None:
    network, record = timm("lambda_resnet26t")
    images = crops(some(1, 256))
    assert ForwardPass(network, record).prepare(images) == ""
    with pytest.raises(Inapplicable, match=r"padding cannot reach conv.* in stages.2.1.self_attn.conv_lambda"):
        ForwardPass(network, record, REGISTRY.get(Padding, "circular")).prepare(images)


def test_pieces_hold_the_same_windows_that_every_padding_sees(tmp_path: Any) -> None:
    photos = REGISTRY.get(Images, "photos")
    plain, with_surroundings = (
        train_test_crops(photos, photos, 20, 12, 64, surrounded=surrounded) for surrounded in (False, True)
    )
    for part, larger in zip(plain, with_surroundings, strict=True):
        assert np.array_equal(part.pixels, larger.pixels)
        assert not part.surrounded
        assert all(
            np.array_equal(centre_crop(p, 64, 64), w) for p, w in zip(larger.surrounded, larger.pixels, strict=True)
        )
        # 64 pixels at 224 are 18 at 64.
        assert {image.shape for image in larger.surrounded} == {(100, 100, 3)}


def test_leaves_are_surrounded_by_their_torus() -> None:
    leaves = REGISTRY.get(Images, "leaves")
    (train, _) = train_test_crops(leaves, leaves, 2, 1, 64, surrounded=True)
    for piece, window in zip(train.surrounded, train.pixels, strict=True):
        assert piece.shape == (100, 100, 3)
        tiled = np.tile(window, (3, 3, 1))
        assert np.array_equal(piece, tiled[64 - 18 : 128 + 18, 64 - 18 : 128 + 18])


def test_images_that_end_at_the_window_have_no_surroundings() -> None:
    def draw(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

    static = Images(name="static", summary="", version="1", draw=draw)
    with pytest.raises(Inapplicable, match="images 'static' end at the window"):
        train_test_crops(static, static, 1, 1, 64, surrounded=True)


def test_small_photographs_keep_what_margin_they_have(tmp_path: Any) -> None:
    from posbench.data.folder import folder_images

    for i, (width, height) in enumerate([(300, 80), (74, 74), (200, 200)]):
        Image.fromarray(some(1, 300, i)[0][:height, :width]).save(tmp_path / f"{i}.png")
    folder = folder_images(tmp_path)
    parts = train_test_crops(folder, folder, 4, 4, 64, surrounded=True)
    shapes = {n: piece.shape for part in parts for n, piece in zip(part.photographs, part.surrounded, strict=True)}
    assert sorted(shapes.values()) == [(74, 74, 3), (80, 100, 3), (100, 100, 3)]
