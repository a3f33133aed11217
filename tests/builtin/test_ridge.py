"""The linear probe against scikit-learn in float64, and on features with and without position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch.utils._python_dispatch import TorchDispatchMode

from posbench.bench.targets import pattern
from posbench.builtin.metrics.scores import spc
from posbench.builtin.readouts import ridge, standardize
from posbench.builtin.readouts.aligned_conv import by_tap
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.builtin.readouts.standardize import standardise
from posbench.core import offload
from posbench.core.errors import PosbenchError
from posbench.network.build import build
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.network.weights import Request, resolve
from posbench.plugin.components import Backbone, Images, Target
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize
from tests.crops import train_test_crops

REGISTRY = load_registry()
TARGETS = ["H", "V", "G", "HS", "VS"]


def targets(side: int) -> torch.Tensor:
    return torch.stack([resize(pattern(REGISTRY.get(Target, name)), side) for name in TARGETS])


def noise(seed: int, images: int, shapes: list[tuple[int, int]], grid: int) -> Features:
    """Return random taps of these sides and channels, with different means and scales, and correlated channels."""
    generator = torch.Generator().manual_seed(seed)
    taps = []
    for side, channels in shapes:
        tap = torch.randn(images, side, side, channels, generator=generator)
        tap = tap + tap.roll(1, -1) + 0.5 * tap.roll(1, 1)
        # Some of the position, so that there is something to find.
        tap = tap + torch.linspace(-1, 1, side)[:, None] * torch.linspace(-1, 1, channels)
        taps.append((tap + torch.linspace(-5, 5, channels)) * torch.logspace(-2, 2, channels))
    return Features(tuple(taps), grid)


SHAPES = [(12, 5), (8, 4), (3, 6)]


def aligned64(features: Features) -> NDArray[np.float64]:
    """Return all channels on the grid, [n, grid, grid, channels], resized in float64."""
    maps = [
        F.interpolate(tap.double().permute(0, 3, 1, 2), (features.grid,) * 2, mode="bilinear", align_corners=True)
        for tap in features.taps
    ]
    return torch.cat(maps, 1).permute(0, 2, 3, 1).numpy()


def patches(maps: NDArray[np.float64], kernel: int) -> NDArray[np.float64]:
    """Return one row for each place of the kernel: the values under it."""
    n, grid, _, _ = maps.shape
    side = grid - kernel + 1
    return np.array(
        [maps[i, y : y + kernel, x : x + kernel].ravel() for i in range(n) for y in range(side) for x in range(side)]
    )


def by_sklearn(train: Features, test: Features, drawn: torch.Tensor, kernel: int, penalty: float) -> torch.Tensor:
    maps, unseen = aligned64(train), aligned64(test)
    scaler = StandardScaler().fit(maps.reshape(-1, maps.shape[-1]))
    rows, new = (patches(scaler.transform(m.reshape(-1, m.shape[-1])).reshape(m.shape), kernel) for m in (maps, unseen))
    answers = np.tile(drawn.flatten(1).T.double().numpy(), (len(train), 1))
    fitted = Ridge(alpha=penalty * len(rows)).fit(rows, answers)
    side = drawn.shape[-1]
    return torch.from_numpy(fitted.predict(new)).view(len(test), side, side, len(drawn)).permute(0, 3, 1, 2)


def at_once(images: int, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the number of images in a chunk."""
    monkeypatch.setattr(standardize, "CHUNK_VALUES", images * sum(tap[0].numel() for tap in features.taps))
    monkeypatch.setattr(standardize, "CHUNK_CELLS", 0)


@pytest.mark.parametrize(("kernel", "penalty"), [(3, 1.0), (3, 0.01), (1, 0.1), (5, 1.0)])
@pytest.mark.parametrize("images", [12, 5])
def test_converged_it_is_scikit_learns_ridge(
    kernel: int, penalty: float, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train, test, drawn = noise(0, 12, SHAPES, 8), noise(1, 5, SHAPES, 8), targets(8 - kernel + 1)
    at_once(images, train, monkeypatch)
    got = fit_ridge(train, drawn, kernel=kernel, penalty=penalty).predict(test)
    expected = by_sklearn(train, test, drawn, kernel, penalty)
    assert got.shape == (5, 5, 9 - kernel, 9 - kernel)
    assert float(expected.std(0).mean()) > 0.01  # not merely the mean target
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-4)


def test_channels_far_from_zero_are_fitted_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)

    def far(features: Features) -> Features:
        return Features(tuple(tap + 1000 * tap.std(dim=(0, 1, 2)) for tap in features.taps), 8)

    train, test = far(noise(0, 12, SHAPES, 8)), far(noise(1, 5, SHAPES, 8))
    at_once(5, train, monkeypatch)
    got = fit_ridge(train, targets(6), kernel=3, penalty=1.0).predict(test)
    torch.testing.assert_close(got.double(), by_sklearn(train, test, targets(6), 3, 1.0), rtol=0, atol=5e-3)


def test_means_and_deviations_are_those_of_float64_whatever_the_first_image_is() -> None:
    train = noise(0, 12, SHAPES, 8)
    for tap in train.taps:
        tap[1:] += 1000 * tap.std(dim=(0, 1, 2))
    standardised, maps = standardise(train), aligned64(train)
    np.testing.assert_allclose(standardised.scale, 1 / maps.std((0, 1, 2)), rtol=1e-5)
    deviations = standardised.mean_image.aligned()[0].double().permute(1, 2, 0).numpy() - maps.mean(0)
    assert np.abs(deviations / maps.std((0, 1, 2))).max() < 1e-5


def test_bfloat16_features_are_fitted_up_to_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train, test = (
        Features(tuple(tap.bfloat16() for tap in features.taps), 8)
        for features in (noise(0, 12, SHAPES, 8), noise(1, 5, SHAPES, 8))
    )
    got = fit_ridge(train, targets(6), kernel=3, penalty=1.0).predict(test)
    torch.testing.assert_close(got.double(), by_sklearn(train, test, targets(6), 3, 1.0), rtol=0, atol=2e-2)


def test_the_penalty_means_the_same_for_any_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train, test = noise(0, 10, SHAPES, 8), noise(1, 4, SHAPES, 8)
    thrice = Features(tuple(tap.repeat(3, 1, 1, 1) for tap in train.taps), 8)
    once, repeated = (fit_ridge(f, targets(6), kernel=3, penalty=1.0).predict(test) for f in (train, thrice))
    torch.testing.assert_close(once, repeated, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def lite0() -> tuple[Features, Features]:
    """Return features of 48 training and 32 test crops from the default run's trained network."""
    record = REGISTRY.get(Backbone, "tf_efficientnet_lite0")
    weights, problem = resolve(record, Request(), [0], download=False)
    assert problem is None
    network = build(record, weights[0])
    photos = REGISTRY.get(Images, "photos")
    train, test = (
        extract(ForwardPass(network, record), windows, grid=28)
        for windows in train_test_crops(photos, photos, 48, 32, 224)
    )
    return train, test


def scores(predictions: torch.Tensor, drawn: torch.Tensor) -> list[float]:
    return [float(spc(predictions[:, i].double(), target.double()).mean()) for i, target in enumerate(drawn)]


@pytest.mark.parametrize(
    ("penalty", "in_memory"), [(0.1, offload.IN_MEMORY), (0.5, offload.IN_MEMORY), (0.5, 0), (10.0, 0)]
)
def test_rounding_departures_costs_next_to_nothing_of_the_objective(
    penalty: float, in_memory: int, lite0: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, drawn = Features(tuple(tap.bfloat16() for tap in lite0[0].taps), 28), targets(26)
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-7)
    monkeypatch.setattr(offload, "IN_MEMORY", in_memory)
    deviation = torch.from_numpy(aligned64(train).reshape(-1, train.channels).std(0))

    def objective() -> torch.Tensor:
        fitted = fit_ridge(train, drawn, kernel=3, penalty=penalty)
        weight = fitted.weight.double().view(train.channels, 9, 5) * deviation[:, None, None]
        errors = (fitted.predict(train).double() - drawn).square().mean(dim=(0, 2, 3))
        return errors + penalty * weight.square().sum(dim=(0, 1))

    rounded = objective()
    monkeypatch.setattr(ridge, "MIN_ROUNDED_PENALTY", float("inf"))
    least = objective()
    assert torch.equal(rounded, least) == (penalty < 0.5)
    assert bool(((rounded - least) / drawn.double().var(dim=(1, 2)) < 3e-5 / penalty).all())


@pytest.mark.parametrize("padding", [1, 2])
def test_padded_it_is_scikit_learns_ridge_on_features_with_zeros_around(
    padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train, test, drawn = noise(0, 12, SHAPES, 8), noise(1, 5, SHAPES, 8), targets(6 + 2 * padding)
    at_once(5, train, monkeypatch)
    got = fit_ridge(train, drawn, kernel=3, penalty=1.0, padding=padding).predict(test)
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    scale = aligned64(train).reshape(-1, train.channels).std(0)
    rows, new = (patches(np.pad(aligned64(f) / scale, around), 3) for f in (train, test))
    fitted = Ridge(alpha=len(rows)).fit(rows, np.tile(drawn.flatten(1).T.double().numpy(), (len(train), 1)))
    expected = torch.from_numpy(fitted.predict(new)).view(len(test), *drawn.shape[1:], 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-3)


def test_it_stops_within_a_few_thousandths_of_the_converged_correlation(
    lite0: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = lite0
    drawn = targets(26)
    stopped = fit_ridge(train, drawn, kernel=3, penalty=1.0)
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    converged = fit_ridge(train, drawn, kernel=3, penalty=1.0)
    assert stopped.steps <= 12
    assert stopped.steps < converged.steps
    ours, best = scores(stopped.predict(test), drawn), scores(converged.predict(test), drawn)
    assert ours == pytest.approx(best, abs=0.003)
    assert min(best[:3]) > 0.3


def test_targets_fitted_together_are_as_each_alone(
    lite0: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (features.of_taps([3, 4]) for features in lite0)
    drawn = targets(26)
    together = scores(fit_ridge(train, drawn, kernel=3, penalty=1.0).predict(test), drawn)
    alone = [
        scores(fit_ridge(train, drawn[i : i + 1], kernel=3, penalty=1.0).predict(test), drawn[i : i + 1])[0]
        for i in range(5)
    ]
    assert together == pytest.approx(alone, abs=1e-4)
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    alone, all_ = (fit_ridge(train, part, kernel=3, penalty=1.0).predict(test) for part in (drawn[2:3], drawn))
    torch.testing.assert_close(alone[:, 0], all_[:, 2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3, -300.0, 1e4, -1e6])
def test_constant_channels_drop_out(constant: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    train, test = noise(0, 12, SHAPES, 8), noise(1, 5, SHAPES, 8)
    wider = [
        Features((*(F.pad(tap, (1, 1), value=constant) for tap in f.taps), torch.full((len(f), 2, 2, 1), constant)), 8)
        for f in (train, test)
    ]
    without = fit_ridge(train, targets(6), kernel=3, penalty=1.0)
    fitted = fit_ridge(wider[0], targets(6), kernel=3, penalty=1.0)
    torch.testing.assert_close(fitted.predict(wider[1]), without.predict(test), rtol=0, atol=1e-3)
    assert not any(part[[0, -1]].any() for part in by_tap(fitted.weight, wider[0]))


def test_nothing_but_constants_draws_the_mean() -> None:
    features = Features((torch.full((4, 8, 8, 3), 2.5),), 8)
    got = fit_ridge(features, targets(6), kernel=3, penalty=1.0).predict(features)
    torch.testing.assert_close(got, targets(6).mean((1, 2), keepdim=True).expand(4, 5, 6, 6))


def test_a_channel_that_hardly_varies_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a batch norm leaves one that training switched off: its bias, and a ten-thousandth of that in variation.
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-7)

    def more(features: Features, seed: int) -> Features:
        generator = torch.Generator().manual_seed(seed)
        faint = 3 + 3e-4 * torch.randn(len(features), 8, 8, 1, generator=generator)
        return Features((*features.taps, faint), 8)

    train, test = more(noise(0, 12, SHAPES, 8), 2), more(noise(1, 5, SHAPES, 8), 3)
    got = fit_ridge(train, targets(6), kernel=3, penalty=1.0).predict(test)
    torch.testing.assert_close(got.double(), by_sklearn(train, test, targets(6), 3, 1.0), rtol=0, atol=5e-3)


def pure_noise(seed: int, images: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(
        tuple(torch.randn(images, s, s, c, generator=generator) for s, c in ((28, 8), (14, 24), (7, 40))), 28
    )


def test_noise_of_the_same_shape_draws_nothing() -> None:
    drawn, count = targets(26), 128
    predictions = fit_ridge(pure_noise(0, 64), drawn, kernel=3, penalty=1.0).predict(pure_noise(1, count))
    for i, target in enumerate(drawn):
        correlation = spc(predictions[:, i].double(), target.double())
        assert abs(float(correlation.mean())) < 4 * float(correlation.std()) / count**0.5
        assert abs(float(correlation.mean())) < 0.1


def test_targets_among_the_features_are_drawn() -> None:
    drawn = targets(26)
    shown = F.pad(drawn, (1, 1, 1, 1)).permute(1, 2, 0)

    def with_position(features: Features) -> Features:
        return Features((*features.taps, shown.expand(len(features), 28, 28, 5)), 28)

    fitted = fit_ridge(with_position(pure_noise(0, 64)), drawn, kernel=3, penalty=1.0)
    assert min(scores(fitted.predict(with_position(pure_noise(1, 32))), drawn)) > 0.97
    less = fit_ridge(with_position(pure_noise(0, 64)), drawn, kernel=3, penalty=0.01)
    assert min(scores(less.predict(with_position(pure_noise(1, 32))), drawn)) > 0.995


def test_without_convergence_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "MAX_STEPS", 2)
    with pytest.raises(PosbenchError, match="not converged within 2 steps"):
        fit_ridge(noise(0, 12, SHAPES, 8), targets(6), kernel=3, penalty=1.0)


def test_fitting_leaves_features_and_random_state_alone() -> None:
    train, drawn = noise(0, 6, SHAPES, 8), targets(6)
    before, kept, state = [tap.clone() for tap in train.taps], drawn.clone(), torch.get_rng_state()
    first = fit_ridge(train, drawn, kernel=3, penalty=1.0)
    again = fit_ridge(train, drawn, kernel=3, penalty=1.0)
    assert all(map(torch.equal, train.taps, before))
    assert torch.equal(drawn, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, again.weight)


@pytest.mark.parametrize("images", [1, 3])
def test_the_fit_does_not_depend_on_how_features_are_batched(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = noise(0, 12, SHAPES, 8), noise(1, 5, SHAPES, 8)
    whole = fit_ridge(train, targets(6), kernel=3, penalty=1.0)
    at_once(images, train, monkeypatch)
    # The preconditioner's sample differs, the solution does not.
    monkeypatch.setattr(ridge, "TOLERANCE", 1e-9)
    split = fit_ridge(train, targets(6), kernel=3, penalty=1.0)
    torch.testing.assert_close(whole.predict(test), split.predict(test), rtol=0, atol=2e-2)


class Largest(TorchDispatchMode):
    """Records the number of values of the largest tensor that any operation returns."""

    values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if torch.is_tensor(tensor):
                self.values = max(self.values, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_no_feature_is_ever_held_at_the_grids_resolution() -> None:
    images, grid, channels = 240, 28, 128
    full = images * grid**2 * 2 * channels
    features = noise(0, images, [(7, channels), (4, channels)], grid)
    with Largest() as watched:
        fit_ridge(features, targets(grid - 2), kernel=3, penalty=1.0).predict(features)
    # The largest are samples for the preconditioner, whose size does not grow with the images.
    assert watched.values < full / 4
    with Largest() as watched:
        features.aligned()
    assert watched.values == full  # what the watch would have seen
