"""The preconditioner: exact where its picture of the features is, symmetric and positive definite everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posbench.builtin.readouts import preconditioner
from posbench.builtin.readouts.preconditioner import Preconditioner, leading_directions
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.builtin.readouts.standardize import standardise
from posbench.plugin.features import Features


def features(seed: int, images: int = 6, channels: tuple[int, ...] = (5, 4), grid: int = 6) -> Features:
    """Taps whose mean image varies from cell to cell, with content that varies between channels."""
    generator = torch.Generator().manual_seed(seed)
    taps = []
    for count in channels:
        content = torch.randn(images, grid, grid, count, generator=generator) @ torch.randn(
            count, count, generator=generator
        )
        taps.append(content + torch.randn(grid, grid, count, generator=generator))
    return Features(tuple(taps), grid)


def drawn(grid: int, kernel: int) -> torch.Tensor:
    side = grid - kernel + 1
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns, rows * columns]).float() / side


def test_leading_directions_are_those_of_the_singular_values() -> None:
    generator = np.random.default_rng(0)
    left, _ = np.linalg.qr(generator.normal(size=(60, 20)))
    right, _ = np.linalg.qr(generator.normal(size=(20, 20)))
    rows = left @ np.diag(2.0 ** -np.arange(20)) @ right.T
    found = leading_directions(torch.from_numpy(rows), 4).numpy()
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-10)
    # What is left beyond them is the fifth singular value, 1/16.
    assert np.linalg.norm(rows - rows @ found @ found.T, 2) == pytest.approx(1 / 16, rel=0.05)


def test_with_a_kernel_of_one_cell_it_is_the_inverse_itself() -> None:
    # Six images of 36 cells are all sampled, nine channels are fewer than the mixtures told apart, and one cell has no
    # neighbours: nothing is left to be approximated, so that the first step is the last; two more
    # show that nothing was left.
    fitted = fit_ridge(features(0), drawn(6, 1), kernel=1, penalty=0.5)
    assert fitted.steps == 3


def applied(solve: Preconditioner, channels: int, cells: int) -> torch.Tensor:
    """It as a matrix."""
    size = channels * cells
    return solve(torch.eye(size).view(channels, cells, size)).view(size, size)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    images=st.integers(1, 4),
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    kernel=st.sampled_from([1, 3]),
    padding=st.integers(0, 1),
    told_apart=st.integers(1, 4),
    penalty=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_it_is_symmetric_and_positive_definite(
    seed: int, images: int, channels: list[int], kernel: int, padding: int, told_apart: int, penalty: float
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preconditioner, "RESIDUAL_DIRECTIONS", told_apart)
        patched.setattr(preconditioner, "MEAN_DIRECTIONS", told_apart)
        given_features = features(seed, images, tuple(channels))
        found = standardise(given_features, centring=not padding)
        asked = torch.ones(2 * (7 + 2 * padding - kernel,), dtype=torch.bool)
        matrix = applied(Preconditioner(found, kernel, padding, asked, penalty), sum(channels), kernel**2).double()
    size = float(matrix.abs().max())
    assert float((matrix - matrix.T).abs().max()) < 1e-4 * size
    # No direction is taken to vary less than the penalty alone says, or to vary without end.
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert float(values.min()) > 0
    assert float(values.max()) < 1.001 / penalty


@pytest.mark.parametrize(("images", "channels", "kernel", "content"), [(4, 1024, 5, 0.0), (6, 256, 3, 1e-3)])
def test_images_that_are_all_but_alike_are_drawn_exactly(
    images: int, channels: int, kernel: int, content: float
) -> None:
    # What the mean image adds is a million times the penalty here: in float32 a difference of the two is lost.
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 14, 14, channels, generator=generator)
    alike = Features((image + content * torch.randn(images, 14, 14, channels, generator=generator),), 14)
    targets = drawn(14, kernel)
    found = fit_ridge(alike, targets, kernel=kernel, penalty=0.01).predict(alike)
    assert float((found - targets).square().mean() / targets.var()) < 2e-3
