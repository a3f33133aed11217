"""The authors' readout against a plain loop of PyTorch's own parts, one target at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from posbench.builtin.readouts import sgd
from posbench.builtin.readouts.sgd import fit_sgd
from posbench.builtin.targets import gaussian, horizontal, horizontal_stripes
from posbench.core.errors import PosbenchError
from posbench.plugin.features import Features
from posbench.plugin.training import Training

GRID, IMAGE = 8, 64
PATTERNS = torch.stack([torch.from_numpy(draw(256)).float() for draw in (horizontal, gaussian, horizontal_stripes)])


def features(seed: int, images: int = 40) -> Features:
    """Two taps, one at the grid's resolution and one coarser, that hold something of the position."""
    generator = torch.Generator().manual_seed(seed)
    taps = []
    for side, channels in ((GRID, 3), (4, 4)):
        ramp = torch.linspace(-1, 1, side)
        where = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)], dim=-1)
        tap = torch.randn(images, side, side, channels, generator=generator)
        tap[..., :2] += where
        taps.append(tap)
    return Features(tuple(taps), GRID)


def training(images: int = 40, **changes: object) -> Training:
    made = Training(
        features=features(0, images),
        photographs=[str(i) for i in range(images)],
        patterns=PATTERNS,
        image_size=IMAGE,
        seed=3,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def plain(task: Training, number: int, kernel: int, depth: int, padding: int) -> tuple[list[float], torch.Tensor]:
    """One target's readout, written out from the description: its loss of each epoch, and what it draws."""
    maps = torch.cat(
        [
            F.interpolate(tap.permute(0, 3, 1, 2), (GRID, GRID), mode="bilinear", align_corners=True)
            for tap in task.features.taps
        ],
        dim=1,
    )
    pattern = task.patterns[number][None, None]
    target = F.interpolate(pattern, (IMAGE, IMAGE), mode="bilinear", align_corners=False)
    channels = maps.shape[1]
    generator = torch.Generator().manual_seed(task.seed)
    layers: list[nn.Module] = []
    for i in range(depth):
        last = i == depth - 1
        width = 1 if last else channels
        layer = nn.Conv2d(channels, width, kernel, padding=padding)
        # Glorot & Bengio: uniform within √(6 / (fan in + fan out)).
        bound = (6 / (channels * kernel**2 + width * kernel**2)) ** 0.5
        layer.weight.data.uniform_(-bound, bound, generator=generator)
        layer.bias.data.zero_()
        layers += [layer, nn.BatchNorm2d(width), nn.Sigmoid() if last else nn.ReLU()]
    network = nn.Sequential(*layers)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10], 0.1)
    order = torch.Generator().manual_seed(task.seed)
    losses = []
    for _ in range(15):
        total = 0.0
        for numbers in torch.randperm(len(maps), generator=order).split(32):
            drawn = F.interpolate(network(maps[numbers]), (IMAGE, IMAGE), mode="bilinear", align_corners=False)
            loss = nn.functional.mse_loss(drawn, target.expand_as(drawn))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(numbers)
        schedule.step()
        losses.append(total / len(maps))
    with torch.no_grad():
        return losses, network.eval()(maps)[:, 0]


@pytest.mark.parametrize(("kernel", "depth", "padding"), [(3, 1, 0), (1, 1, 0), (5, 1, 2), (3, 2, 0), (3, 3, 1)])
def test_every_target_is_trained_as_a_plain_loop_trains_it_alone(kernel: int, depth: int, padding: int) -> None:
    task = training()
    fitted = fit_sgd(task, kernel=kernel, depth=depth, padding=padding)
    drawn = fitted.predict(task.features)
    for i in range(len(PATTERNS)):
        losses, alone = plain(task, i, kernel, depth, padding)
        assert losses[-1] < 0.9 * losses[0]
        assert fitted.losses[:, i].tolist() == pytest.approx(losses, rel=1e-4)
        torch.testing.assert_close(drawn[:, i], alone, rtol=0, atol=2e-3)


def test_together_is_alone() -> None:
    task = training()
    together = fit_sgd(task).predict(task.features)
    for i in range(len(PATTERNS)):
        alone = fit_sgd(replace(task, patterns=PATTERNS[i : i + 1])).predict(task.features)
        torch.testing.assert_close(together[:, i], alone[:, 0], rtol=0, atol=1e-5)


def test_the_seed_draws_the_weights_and_the_order_and_nothing_global_does() -> None:
    task = training()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = fit_sgd(task)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(fit_sgd(task).losses, first.losses)
    assert not torch.equal(fit_sgd(replace(task, seed=4)).losses, first.losses)


def test_a_target_beyond_the_sigmoid_is_trained_on_its_range_and_drawn_on_its_own() -> None:
    task = training()
    signed = replace(task, patterns=2 * PATTERNS - 1)
    plain_, stretched = fit_sgd(task).predict(task.features), fit_sgd(signed).predict(task.features)
    torch.testing.assert_close(stretched, 2 * plain_ - 1, rtol=0, atol=5e-3)
    assert float(stretched.min()) < -0.5


def test_what_it_predicts_of_an_image_depends_on_that_image_alone() -> None:
    task, unseen = training(), features(7, 33)
    fitted = fit_sgd(task)
    drawn = fitted.predict(unseen)
    assert drawn.shape == (33, 3, 6, 6)
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(fitted.predict(unseen.of_images([4])), drawn[4:5])


def test_a_batch_of_one_is_trained_on_too() -> None:
    assert bool(fit_sgd(training(33)).losses.isfinite().all())
    assert bool(fit_sgd(training(1)).losses.isfinite().all())


def test_bfloat16_features_are_read_in_float32() -> None:
    task = training()
    coarse = Features(tuple(tap.bfloat16() for tap in task.features.taps), GRID)
    exact = Features(tuple(tap.float() for tap in coarse.taps), GRID)
    assert torch.equal(fit_sgd(replace(task, features=coarse)).losses, fit_sgd(replace(task, features=exact)).losses)


def test_features_of_an_inference_pass_can_be_trained_on() -> None:
    with torch.inference_mode():
        made = features(0)
        patterns = PATTERNS.clone()
    assert torch.equal(fit_sgd(training(features=made, patterns=patterns)).losses, fit_sgd(training()).losses)


def test_as_in_the_text_there_is_no_bound_and_the_rate_is_lowered_until_the_loss_falls() -> None:
    task = training()
    fitted = fit_sgd(task, bounded=False)
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.Sigmoid) for stack in fitted.stacks for layer in stack)
    assert fitted.rates == [0.1] * 3
    assert bool((fitted.losses[-1] < fitted.losses[0]).all())
    loud = Features(tuple(30 * tap for tap in task.features.taps), GRID)
    slowed = fit_sgd(replace(task, features=loud), bounded=False)
    assert all(rate < 0.05 for rate in slowed.rates)
    assert bool((slowed.losses[-1] < slowed.losses[0]).all())
    # Each target's rate is its own: alone it is the same.
    alone = fit_sgd(replace(task, features=loud, patterns=PATTERNS[1:2]), bounded=False)
    assert alone.rates == [slowed.rates[1]]
    assert alone.losses[:, 0].tolist() == pytest.approx(slowed.losses[:, 1].tolist(), rel=1e-4)


def test_a_readout_that_ends_worse_than_a_constant_says_so() -> None:
    targets = training().targets(training().image_size).double()
    fitted = fit_sgd(training())
    assert fitted.constant_losses.tolist() == pytest.approx(targets.var((1, 2), correction=0).tolist(), rel=1e-5)
    worse = replace(fitted, losses=torch.stack([fitted.constant_losses * factor for factor in (9, 1.01)]))
    better = replace(fitted, losses=torch.stack([fitted.constant_losses * factor for factor in (9, 0.99)]))
    assert better.remarks == ["", "", ""]
    assert all(remark.startswith("after 15 epochs at learning rate 0.1 the readout errs") for remark in worse.remarks)


def test_a_loss_that_never_falls_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgd, "MAX_RATE_REDUCTIONS", 1)
    loud = Features(tuple(1e6 * tap for tap in features(0).taps), GRID)
    with pytest.raises(PosbenchError, match=r"does not fall at any learning rate from 0.1 to 1e-02"):
        fit_sgd(training(features=loud), bounded=False)
