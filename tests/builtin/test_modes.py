"""The position spectrum against its definition in float64, by hand, and without position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posbench.builtin.metrics import modes
from posbench.builtin.metrics.modes import PositionModes, fit_modes
from posbench.builtin.readouts import ridge
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.plugin.features import Features

GRID = 6
#: Sides and channels of three taps: as fine as the grid, between, and coarse.
SHAPES = [(6, 5), (4, 3), (2, 4)]


def random_features(seed: int, images: int, *, position: float = 1.0, noise: float = 1.0) -> Features:
    """Return taps of random position maps, the same for every seed, plus noise, in channels of different scales."""
    fixed, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1 + seed)
    taps = []
    for side, channels in SHAPES:
        where = torch.randn(side, side, channels, generator=fixed)
        tap = torch.randn(images, side, side, channels, generator=generator)
        tap = position * where + noise * (tap + 0.5 * tap.roll(1, -1))
        taps.append((tap + torch.linspace(-5, 5, channels)) * torch.logspace(-2, 2, channels))
    return Features(tuple(taps), GRID)


def one_tap(maps: torch.Tensor) -> Features:
    """Return images [n, side, side, channels] as features of one tap on its own grid."""
    return Features((maps.float(),), maps.shape[1])


def aligned64(features: Features) -> NDArray[np.float64]:
    """Return all channels at all cells of the grid, [n, P, C], resized in float64."""
    maps = [
        F.interpolate(tap.double().permute(0, 3, 1, 2), (features.grid,) * 2, mode="bilinear", align_corners=True)
        for tap in features.taps
    ]
    return torch.cat(maps, 1).flatten(2).mT.numpy()


class Dense:
    """The definitions of docs/position-spectrum.md."""

    def __init__(self, train: Features, penalty: float) -> None:
        x = aligned64(train)
        self.mean, self.sd = x.mean((0, 1)), x.std((0, 1))
        f = (x - self.mean) / self.sd
        n, self.cells, channels = f.shape
        self.means = f.mean(0)
        moment = np.einsum("npc,npd->cd", f, f) / (n * self.cells)
        self.inverse = np.linalg.inv(moment + penalty * np.eye(channels))
        self.s = self.means @ self.inverse @ self.means.T / self.cells

    def drawn(self, y: NDArray[np.float64], test: Features) -> NDArray[np.float64]:
        """Return the predictions of the readout fitted to a map y [P]: [n, P]."""
        f = (aligned64(test) - self.mean) / self.sd
        return f @ (self.inverse @ (self.means.T @ y) / self.cells)

    def read(self, test: Features) -> NDArray[np.float64]:
        f = (aligned64(test) - self.mean) / self.sd
        return np.einsum("pc,cd,npd->n", self.means, self.inverse, f) / self.cells


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_it_is_what_its_definition_says(penalty: float) -> None:
    train, test = random_features(0, 12), random_features(1, 5)
    fitted, dense = fit_modes(train, penalty=penalty), Dense(train, penalty)
    assert fitted.spectrum.dtype == torch.float64
    np.testing.assert_allclose(fitted.spectrum, np.linalg.eigvalsh(dense.s)[::-1], atol=1e-5)
    np.testing.assert_allclose(dense.s @ fitted.maps.numpy(), (fitted.spectrum * fitted.maps).numpy(), atol=1e-5)
    read = fitted.read(test)
    assert (read.dtype, read.shape) == (torch.float64, (5,))
    np.testing.assert_allclose(read, dense.read(test), rtol=1e-5)
    assert float(read.min()) > 0.3  # not merely zeros
    shares = fitted.shares(test, 3)
    assert (shares.dtype, shares.shape) == (torch.float64, (5, 3))
    for j in range(3):
        u = fitted.maps[:, j].numpy()
        np.testing.assert_allclose(shares[:, j], dense.drawn(u, test) @ u, rtol=1e-4, atol=1e-5)


def test_on_its_training_images_it_reads_the_sum_of_the_spectrum() -> None:
    train = random_features(0, 12)
    fitted = fit_modes(train)
    assert float(fitted.read(train).mean()) == pytest.approx(float(fitted.spectrum.sum()), rel=1e-5)
    np.testing.assert_allclose(fitted.shares(train, 36).mean(0), fitted.spectrum, atol=1e-5)


def test_shares_of_all_modes_sum_to_what_is_read() -> None:
    fitted, test = fit_modes(random_features(0, 12)), random_features(1, 20)  # more than one batch
    np.testing.assert_allclose(fitted.shares(test, GRID**2).sum(1), fitted.read(test), rtol=1e-9)


def test_its_weights_are_the_linear_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train = random_features(0, 12)
    targets = torch.randn(2, GRID, GRID, generator=torch.Generator().manual_seed(0))
    fitted = fit_ridge(train, targets, kernel=1, penalty=1.0).weight
    weight = fit_modes(train).weight @ targets.flatten(1).T.double()
    torch.testing.assert_close(weight.float(), fitted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("copies", [1, 4])
def test_a_coordinate_is_one_mode(copies: int, penalty: float) -> None:
    # Standardised, k equal channels without noise have one mode of variance k: it is drawn by k / (k + λ).
    ramp = torch.arange(8.0).expand(3, 8, 8)
    features = one_tap(ramp[..., None].expand(-1, -1, -1, copies))
    fitted = fit_modes(features, penalty=penalty)
    share = copies / (copies + penalty)
    np.testing.assert_allclose(fitted.spectrum, [share, *[0] * 63], atol=1e-6)
    np.testing.assert_allclose(fitted.read(features), [share] * 3, rtol=1e-6)
    # Of unit norm, and positive where it is first large: at the left.
    expected = (3.5 - ramp[0]) / (3.5 - ramp[0]).norm()
    torch.testing.assert_close(fitted.leading(1)[0], expected)


def test_two_unlike_coordinates_are_two_modes() -> None:
    ramp = torch.arange(8.0).expand(2, 8, 8)
    fitted = fit_modes(one_tap(torch.stack([ramp, 100 * ramp.mT], -1)))
    np.testing.assert_allclose(fitted.spectrum[:3], [0.5, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_a_channel_for_each_cell_draws_every_map_alike(penalty: float) -> None:
    # One-hot channels have variance (1/P)(1 − 1/P); standardised, each of the P − 1 modes has variance P / (P − 1).
    cells = 16
    features = one_tap(torch.eye(cells).view(1, 4, 4, cells).expand(3, -1, -1, -1))
    fitted = fit_modes(features, penalty=penalty)
    share = cells / (cells + penalty * (cells - 1))
    np.testing.assert_allclose(fitted.spectrum, [share] * 15 + [0], atol=1e-6)
    np.testing.assert_allclose(fitted.read(features), [15 * share] * 3, rtol=1e-6)
    if penalty == 0.01:
        assert 14.8 < float(fitted.spectrum.sum()) < 15


def test_noise_as_strong_as_position_halves_what_is_drawn() -> None:
    # ±1 by the column and ±1 by the image: variance 1 each. Standardised, B² = W = ½, and ½ / (½ + ½ + λ) = ¼.
    where = torch.tensor([-1.0, 1.0]).expand(2, 2, 2)
    features = one_tap((where + torch.tensor([-1.0, 1.0]).view(2, 1, 1))[..., None])
    fitted = fit_modes(features)
    np.testing.assert_allclose(fitted.spectrum, [0.25, 0, 0, 0], atol=1e-7)
    # What an image has everywhere tells nothing of position: both read the same.
    np.testing.assert_allclose(fitted.read(features), [0.25, 0.25], rtol=1e-6)
    # Drawn twice as strongly, drawn not at all, drawn the wrong way round.
    others = one_tap(torch.stack([2 * where[0], torch.ones(2, 2), -where[0]])[..., None])
    np.testing.assert_allclose(fitted.read(others), [0.5, 0, -0.25], atol=1e-7)


def test_features_that_hold_no_position_read_zero_on_unseen_images() -> None:
    train, test = random_features(0, 32, position=0), random_features(1, 400, position=0)
    fitted = fit_modes(train)
    read = fitted.read(test)
    error = float(read.std()) / 400**0.5
    assert abs(float(read.mean())) < 4 * error
    assert error < 0.01
    assert float(fitted.spectrum.sum()) > 0.1  # as the training images do not
    shares = fitted.shares(test, 4)
    assert bool((shares.mean(0).abs() < 4 * shares.std(0) / 400**0.5).all())


def test_noise_takes_modes_away() -> None:
    numbers = [
        float(fit_modes(random_features(0, 24, noise=noise)).read(random_features(1, 24, noise=noise)).mean())
        for noise in (0.0, 0.5, 1, 2)
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 2 * numbers[-1] > 0


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 5),
    sides=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    channels=st.integers(1, 6),
    position=st.floats(0, 100),
    penalty=st.floats(1e-3, 1e3),
)
def test_shrinkages_are_shares_and_have_a_ceiling(
    seed: int, images: int, sides: list[int], channels: int, position: float, penalty: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    taps = [
        position * torch.randn(side, side, channels, generator=generator)
        + torch.randn(images, side, side, channels, generator=generator)
        for side in sides
    ]
    fitted = fit_modes(Features(tuple(taps), 5), penalty=penalty)
    spectrum = fitted.spectrum
    assert bool(((spectrum >= 0) & (spectrum < 1)).all())
    assert bool((spectrum.diff() <= 0).all())
    torch.testing.assert_close(fitted.maps.mT @ fitted.maps, torch.eye(25, dtype=torch.float64))
    # C channels of unit variance, spread evenly over as many modes as there can be, draw most.
    width, most = len(sides) * channels, min(24, len(sides) * channels)
    assert float(spectrum.sum()) <= most * width / (width + penalty * most) * (1 + 1e-5) + 1e-9
    # The constant map is the bias's to draw.
    level = torch.full((25,), 0.2, dtype=torch.float64)
    assert float(level @ (fitted.maps * spectrum) @ fitted.maps.mT @ level) < 1e-9


@settings(deadline=None, max_examples=15)
@given(
    scales=st.lists(st.floats(0.01, 100) | st.floats(-100, -0.01), min_size=5, max_size=5),
    shifts=st.lists(st.floats(-100, 100), min_size=5, max_size=5),
)
def test_the_channels_scale_and_origin_do_not_matter(scales: list[float], shifts: list[float]) -> None:
    def other(features: Features) -> Features:
        first, *rest = features.taps
        spread = first.std((0, 1, 2))
        return Features((first * torch.tensor(scales) + torch.tensor(scales) * spread * torch.tensor(shifts), *rest), 6)

    train, test = random_features(0, 8), random_features(1, 4)
    plain, changed = fit_modes(train), fit_modes(other(train))
    np.testing.assert_allclose(changed.spectrum, plain.spectrum, atol=2e-4)
    np.testing.assert_allclose(changed.read(other(test)), plain.read(test), atol=2e-3)


@pytest.mark.parametrize("origin", [1e3, -1e4])
def test_channels_far_from_zero_are_read_alike(origin: float) -> None:
    # In float32 a value near 10⁴ is known to 10⁻³ only, so the values are rounded to what both can hold.
    def rounded(features: Features) -> Features:
        return Features(tuple((tap / tap.std((0, 1, 2)) * 256).round() / 256 for tap in features.taps), 6)

    train, test = rounded(random_features(0, 8)), rounded(random_features(1, 4))
    plain = fit_modes(train)
    far = fit_modes(Features(tuple(tap + origin for tap in train.taps), 6))
    np.testing.assert_allclose(far.spectrum, plain.spectrum, atol=2e-3)
    read = far.read(Features(tuple(tap + origin for tap in test.taps), 6))
    np.testing.assert_allclose(read, plain.read(test), atol=1e-2)


@pytest.mark.parametrize("constant", [0.0, 7.3, -1e6])
def test_constant_channels_take_no_part(constant: float) -> None:
    train, test = random_features(0, 8), random_features(1, 4)
    wider = [
        Features((*(F.pad(tap, (1, 1), value=constant) for tap in f.taps), torch.full((len(f), 2, 2, 1), constant)), 6)
        for f in (train, test)
    ]
    plain, fitted = fit_modes(train), fit_modes(wider[0])
    np.testing.assert_allclose(fitted.spectrum, plain.spectrum, atol=1e-6)
    np.testing.assert_allclose(fitted.read(wider[1]), plain.read(test), rtol=1e-6)
    assert not fitted.weight[[0, 6, -1]].any()


def test_nothing_but_constants_has_no_modes() -> None:
    features = Features((torch.full((4, 6, 6, 3), 2.5),), 6)
    fitted = fit_modes(features)
    assert not fitted.spectrum.any()
    assert not fitted.read(features).any()


def by_lattice(train: Features, stride: int, monkeypatch: pytest.MonkeyPatch) -> PositionModes:
    """Fit modes from every `stride`-th cell of each image along either axis."""
    monkeypatch.setattr(modes, "SAMPLED_CELLS", len(train) * train.grid**2 / stride**2)
    monkeypatch.setattr(modes, "SAMPLED_PER_CHANNEL", 0)
    return fit_modes(train)


@pytest.mark.parametrize("stride", [2, 3, 6])
def test_a_sample_takes_every_cell_equally_often(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every image lies as far from the mean at a cell as any other, so that any one of them tells a cell's covariance.
    generator = torch.Generator().manual_seed(0)
    mean, apart = torch.randn(2, GRID, GRID, 5, generator=generator)
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(stride**2)
    features = one_tap(mean + sign.view(-1, 1, 1, 1) * apart)
    sampled = by_lattice(features, stride, monkeypatch)
    np.testing.assert_allclose(sampled.spectrum, np.linalg.eigvalsh(Dense(features, 1.0).s)[::-1], atol=1e-5)


def test_a_sample_of_cells_reads_as_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = random_features(0, 200), random_features(1, 100)
    everything, sampled = fit_modes(train), by_lattice(train, 3, monkeypatch)
    assert not torch.equal(everything.spectrum, sampled.spectrum)
    assert float(sampled.read(test).mean()) == pytest.approx(float(everything.read(test).mean()), rel=0.02)


def test_bfloat16_features_are_read_as_their_values() -> None:
    train, test = (
        Features(tuple(tap.bfloat16() for tap in f.taps), 6) for f in (random_features(0, 12), random_features(1, 5))
    )
    dense = Dense(train, 1.0)
    fitted = fit_modes(train)
    np.testing.assert_allclose(fitted.spectrum, np.linalg.eigvalsh(dense.s)[::-1], atol=1e-5)
    np.testing.assert_allclose(fitted.read(test), dense.read(test), rtol=1e-5)


def test_leading_maps_have_unit_norm_and_a_fixed_sign() -> None:
    fitted = fit_modes(random_features(0, 12))
    negated = PositionModes(fitted.grid, fitted.spectrum, -fitted.maps, fitted.weight, fitted.centre)
    maps = fitted.leading(3)
    assert (maps.dtype, maps.shape) == (torch.float32, (3, GRID, GRID))
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(maps, negated.leading(3), rtol=0, atol=0)
    for drawn in maps.flatten(1):
        assert next(float(value) for value in drawn if abs(value) >= drawn.abs().max() / 2) > 0
