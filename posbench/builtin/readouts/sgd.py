"""The authors' readout: a small stack of convolutions, trained by stochastic gradient descent.

Targets share the features and the order of batches and nothing else: each has weights, normalisation statistics and
momentum of its own, so fitting several together is fitting each alone, for one visit to the features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from posbench.builtin.readouts.aligned_conv import adjoint, convolve
from posbench.core.errors import PosbenchError
from posbench.plugin.features import Features
from posbench.plugin.resampling import resize
from posbench.plugin.training import Training

EPOCHS = 15
BATCH = 32
RATE = 0.1
#: The learning rate is a tenth from this epoch on, counted from 0.
SLOWER_FROM = 10
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
#: How often the rate may be lowered tenfold before a readout that will not settle is given up.
LOWERED = 8


@dataclass(frozen=True)
class ConvolutionalReadout:
    """A trained readout.

    Attributes:
        stacks: one a target.
        low, span: what a stack's 0 and the way from there to its 1 stand for, float32 [targets].
        losses: the mean training loss, float64 [epochs, targets], on the scale of the stacks.
        rates: the learning rate that each target began with.
        constant: the loss of the best constant, float64 [targets], on the same scale.
    """

    stacks: Sequence[nn.Sequential]
    low: torch.Tensor
    span: torch.Tensor
    losses: torch.Tensor
    rates: Sequence[float]
    constant: torch.Tensor

    @property
    def remarks(self) -> list[str]:
        """For each target nothing, or that its training ended worse than a constant."""
        return [
            f"after {EPOCHS} epochs at learning rate {rate:g} the readout errs more than a constant would"
            if float(loss) > float(constant)
            else ""
            for rate, loss, constant in zip(self.rates, self.losses[-1], self.constant, strict=True)
        ]

    @torch.inference_mode()
    def predict(self, features: Features) -> torch.Tensor:
        """The drawn maps before they are resized, float32 [n, targets, side, side]."""
        maps = torch.cat([_draw(self.stacks, batch) for batch in features.batches(BATCH)])
        return self.low[:, None, None] + self.span[:, None, None] * maps


def fit_sgd(
    training: Training, *, kernel: int = 3, depth: int = 1, padding: int = 0, bounded: bool = True
) -> ConvolutionalReadout:
    """Train the authors' readout as their code has it, or with `bounded=False` as their text has it.

    Convolutions k×k over all taps, aligned to the grid; hidden ones keep the number of channels. The code puts
    BatchNorm and a sigmoid behind the last; the text mentions neither. The mean squared error is taken at image size.
    Fifteen epochs in batches of 32, learning rate 0.1 and from the eleventh on 0.01, momentum 0.9, weight decay 1e-4 on
    all parameters, weights drawn as Glorot & Bengio do (uniform) from the training's seed, biases from 0.

    A sigmoid draws values in [0, 1]: a target that goes beyond is trained on that range and drawn on its own. The text
    states no learning rate, and without BatchNorm 0.1 diverges on most networks: it is then lowered tenfold until the
    training loss falls. Where positions are held out, the error is taken on the readout's own grid: resizing would mix
    them with others.

    Args:
        training: the task.
        kernel: k, odd.
        depth: how many convolutions; the hidden ones are followed by BatchNorm (if bounded) and ReLU.
        padding: cells of zeros that each convolution adds on every side.
        bounded: as the code has it.

    Raises:
        PosbenchError: if an unbounded readout's loss does not fall at any rate.

    Source:
        Islam, Jia & Bruce (ICLR 2020), section 3.2, and the code that they published.
    """
    device = training.patterns.device
    drawn = training.features.grid + depth * (2 * padding - kernel + 1)
    targets = training.targets(drawn if training.held_out else training.image_size)
    low = torch.zeros(len(targets), device=device)
    high = torch.ones_like(low)
    if bounded:
        patterns = training.patterns
        low, high = low.minimum(patterns.amin(dim=(1, 2))), high.maximum(patterns.amax(dim=(1, 2)))
    scaled = (targets - low[:, None, None]) / (high - low)[:, None, None]
    fresh = _stack(training.features.channels, kernel, depth, padding, bounded, training.seed).to(device)
    stacks = [copy.deepcopy(fresh) for _ in targets]
    losses = torch.full((EPOCHS, len(targets)), torch.nan, dtype=torch.float64)
    rates = [0.0] * len(targets)
    waiting = list(range(len(targets)))
    for rate in (RATE * 0.1**times for times in range(1 if bounded else 1 + LOWERED)):
        for i in waiting:
            stacks[i], rates[i] = copy.deepcopy(fresh), rate
        losses[:, waiting] = _train([stacks[i] for i in waiting], training, scaled[waiting], rate)
        if bounded:
            break
        waiting = [i for i in waiting if not bool(losses[-1, i] <= losses[0, i])]
        if not waiting:
            break
    else:
        raise PosbenchError(f"the readout's loss does not fall at any learning rate from {RATE} to {rate:.0e}")
    for stack in stacks:
        stack.eval()
    constant = (scaled - scaled.nanmean(dim=(1, 2), keepdim=True)).square().nanmean(dim=(1, 2)).double().cpu()
    return ConvolutionalReadout(stacks, low, high - low, losses, rates, constant)


def _stack(channels: int, kernel: int, depth: int, padding: int, bounded: bool, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for left in reversed(range(depth)):
        # Without skip_init a module would be drawn from torch's global generator first.
        convolution: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, channels if left else 1, kernel, padding=padding
        )
        nn.init.xavier_uniform_(convolution.weight, generator=generator)
        convolution.bias.data.zero_()  # type: ignore[union-attr]
        layers.append(convolution)
        if bounded:
            layers.append(nn.BatchNorm2d(convolution.out_channels))
        if left:
            layers.append(nn.ReLU())
        elif bounded:
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


class _Mixed(torch.autograd.Function):
    """The first convolutions of all stacks, mixing each tap's channels at the tap's own resolution."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, features: Features, kernel: int, padding: int) -> torch.Tensor:
        """From weights [channels, k·k·targets] to [targets, n, side, side]."""
        ctx.given = features, kernel, padding
        return convolve(features, weight, kernel, padding)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        features, kernel, padding = ctx.given
        return adjoint(features, gradient, kernel, padding), None, None, None


def _draw(stacks: Sequence[nn.Sequential], features: Features) -> torch.Tensor:
    """What each stack makes of the aligned features: [n, targets, side, side].

    The first convolutions read the same features: as one, they are several times as fast as one after the other.
    """
    first = [cast(nn.Conv2d, stack[0]) for stack in stacks]
    weight, bias = (torch.cat([getattr(layer, name) for layer in first]) for name in ("weight", "bias"))
    kernel, padding = int(first[0].kernel_size[0]), int(first[0].padding[0])
    if first[0].out_channels == 1:
        maps = _Mixed.apply(weight.permute(1, 2, 3, 0).flatten(1), features, kernel, padding)
        parts = (maps + bias[:, None, None, None]).unsqueeze(2)
    else:
        # Hidden layers have as many maps as there are channels: mixing these first would save nothing.
        parts = F.conv2d(features.aligned(), weight, bias, padding=padding).chunk(len(stacks), dim=1)
    return torch.cat([stack[1:](part) for stack, part in zip(stacks, parts, strict=True)], dim=1)


def _mean_error(targets: torch.Tensor, drawn: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mean squared error of maps [n, targets, drawn, drawn], once resized to their targets' size: [targets].

    Resizing is linear, R d Rᵀ, so ‖R d Rᵀ − y‖² is found on the small grid. With d = a + e for the target a on that
    grid, whose residual is r = R a Rᵀ − y, it is ‖r‖² + 2⟨e, Rᵀ r R⟩ + ⟨e, RᵀR e RᵀR⟩.

    Args:
        targets: [targets, side, side]; NaN, where nothing is asked, only if they are on the grid of the maps.
    """
    side = targets.shape[-1]
    if side == drawn:
        # Through NaN, where nothing is asked, no gradient would come back.
        asked, answers = (~targets.isnan()).float(), targets.nan_to_num()
        return lambda maps: ((maps - answers).square() * asked).mean(0).sum(dim=(1, 2)) / asked.sum(dim=(1, 2))
    near = resize(targets, drawn)
    identity = torch.eye(drawn, device=targets.device)
    rows = F.interpolate(identity[None], size=side, mode="linear", align_corners=False)[0].T
    residual = rows @ near @ rows.T - targets
    constant, slope, twice = residual.square().sum(dim=(1, 2)), rows.T @ residual @ rows, rows.T @ rows

    def error(maps: torch.Tensor) -> torch.Tensor:
        e = maps - near
        return (constant + (e * (2 * slope + twice @ e @ twice)).mean(0).sum(dim=(1, 2))) / side**2

    return error


def _train(stacks: Sequence[nn.Sequential], training: Training, targets: torch.Tensor, rate: float) -> torch.Tensor:
    """Train stacks side by side; returns the mean loss of each epoch, float64 [epochs, targets], NaN where given up."""
    parameters = [parameter for stack in stacks for parameter in stack.parameters()]
    # Its state and its steps are each number's own, so one optimiser is as good as one a target.
    optimiser = torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    order = torch.Generator().manual_seed(training.seed)
    images = len(training.features)
    losses = torch.full((EPOCHS, len(stacks)), torch.nan, dtype=torch.float64)
    error: Callable[[torch.Tensor], torch.Tensor] | None = None
    for epoch in range(EPOCHS):
        if epoch == SLOWER_FROM:
            optimiser.param_groups[0]["lr"] = rate / 10
        total = torch.zeros(len(stacks), dtype=torch.float64, device=targets.device)
        shuffled = torch.randperm(images, generator=order).tolist()
        for start in range(0, images, BATCH):
            numbers = shuffled[start : start + BATCH]
            maps = _draw(stacks, training.features.of_images(numbers))
            error = error or _mean_error(targets, maps.shape[-1])
            loss = error(maps)
            optimiser.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(numbers)
        losses[epoch] = (total / images).cpu()
        if not bool(losses[epoch].isfinite().any()):
            break
    return losses
