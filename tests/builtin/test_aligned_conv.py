"""The convolution of aligned taps against resizing followed by PyTorch's convolution, and its adjoint."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from posbench.builtin.readouts.aligned_conv import adjoint, convolve
from posbench.plugin.features import Features, allocate_taps
from tests.builtin.test_ridge import SHAPES, aligned64, noise


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() * b.double()).sum())


side_and_channels = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(side_and_channels, min_size=1, max_size=4),
    grid=st.integers(5, 8),
    kernel=st.sampled_from([1, 3, 5]),
    drawn=st.integers(1, 4),
    images=st.integers(1, 3),
    padding=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_it_is_aligning_and_then_a_convolution_and_its_adjoint(
    shapes: list[tuple[int, int, int]], grid: int, kernel: int, drawn: int, images: int, padding: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = Features(tuple(torch.randn(images, *shape, generator=generator) for shape in shapes), grid)
    weight = torch.randn(features.channels, kernel**2 * drawn, generator=generator)
    kernels = weight.view(-1, kernel, kernel, drawn).permute(3, 0, 1, 2).double()
    aligned = torch.from_numpy(aligned64(features)).permute(0, 3, 1, 2)
    expected = F.conv2d(aligned, kernels, padding=padding).transpose(0, 1)
    there = convolve(features, weight, kernel, padding)
    torch.testing.assert_close(there.double(), expected, rtol=1e-4, atol=1e-3)
    maps = torch.randn(there.shape, generator=generator)
    back = adjoint(features, maps, kernel, padding)
    assert dot(there, maps) == pytest.approx(dot(weight, back), rel=1e-4, abs=1e-2)
    shared = torch.randn(drawn, 1, *there.shape[2:], generator=generator)
    alike = adjoint(features, shared.expand_as(there).contiguous(), kernel, padding)
    assert torch.equal(adjoint(features, shared, kernel, padding), alike)


def test_taps_side_by_side_are_mixed_as_they_are_apart() -> None:
    apart = noise(3, 20, [(8, 3), (8, 5), (4, 6), (8, 2)], 8)
    beside = Features(
        tuple(allocate_taps([tap.shape for tap in apart.taps], [torch.float32] * 4, torch.device("cpu"))), 8
    )
    for room, tap in zip(beside.taps, apart.taps, strict=True):
        room.copy_(tap)
    assert [tap.shape[3] for tap in beside.merged().taps] == [8, 6, 2]
    assert [tap.shape[3] for tap in apart.merged().taps] == [3, 5, 6, 2]
    weight = torch.randn(apart.channels, 9 * 2)
    for numbers in (slice(2, 9), [3, 4, 5], [11, 2, 7]):
        merged_part, separate_part = (features.of_images(numbers) for features in (beside, apart))
        assert all(map(torch.equal, merged_part.taps, separate_part.taps))
        assert [tap.shape[3] for tap in merged_part.merged().taps] == [8, 6, 2]
        torch.testing.assert_close(
            convolve(merged_part, weight, 3, 0), convolve(separate_part, weight, 3, 0), rtol=1e-4, atol=1e-2
        )
    # What looks like a neighbour, and is none.
    some = torch.randn(20, 8, 8, 16)
    half = some[..., :4]
    for taps in ((some[..., 0:8:2], some[..., 4:12:2]), (half, some[..., 8:12]), (half, some[..., 2:6]), (half, half)):
        features = Features(taps, 8)
        assert len(features.merged().taps) == 2
        assert all(map(torch.equal, features.of_images([3, 1]).taps, (tap[[3, 1]] for tap in taps)))
    # Taps that are left out between two are no part of what is read.
    for taps in ([0], [1, 2], [0, 2, 3], [0, 3]):
        merged_part, separate_part = (features.of_taps(taps) for features in (beside, apart))
        some = torch.randn(merged_part.channels, 9 * 2)
        torch.testing.assert_close(
            convolve(merged_part, some, 3, 0), convolve(separate_part, some, 3, 0), rtol=1e-4, atol=1e-2
        )
        maps = torch.randn(2, 20, 6, 6)
        torch.testing.assert_close(
            adjoint(merged_part, maps, 3, 0), adjoint(separate_part, maps, 3, 0), rtol=1e-4, atol=1e-1
        )


def test_without_the_library_for_convolutions_it_is_the_same() -> None:
    features = noise(3, 20, [*SHAPES, (8, 2)], 8)
    weight, maps = torch.randn(features.channels, 9 * 2), torch.randn(2, 20, 6, 6)
    there, back = convolve(features, weight, 3, 0), adjoint(features, maps, 3, 0)
    # Where torch was built without it, convolutions lay their results out otherwise.
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(convolve(features, weight, 3, 0), there, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(adjoint(features, maps, 3, 0), back, rtol=1e-4, atol=1e-1)
