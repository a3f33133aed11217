"""The readout of Islam, Jia and Bruce: a small stack of convolutions, trained by stochastic gradient descent.

All targets are trained in one pass over the features. Each has its own weights, normalisation statistics and momentum,
so the result is the same as training each alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from posbench import Features, Training
from posbench.builtin.readouts.aligned_conv import adjoint, convolve
from posbench.core.errors import PosbenchError
from posbench.plugin.resampling import resize

EPOCHS = 15
BATCH = 32
RATE = 0.1
#: The epoch, counted from 0, from which the learning rate is a tenth.
DECAY_EPOCH = 10
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
#: How often the initial learning rate is divided by ten if the loss does not fall.
MAX_RATE_REDUCTIONS = 8


@dataclass(frozen=True)
class ConvolutionalReadout:
    """A trained readout.

    Attributes:
        stacks: one network a target, with outputs y that stand for low + span · y.
        low, span: float32 [targets].
        losses: the mean training loss of each epoch, float64 [epochs, targets], on the scale of y.
        rates: the initial learning rate of each target.
        constant_losses: the loss of the best constant map, float64 [targets], on the scale of y.
    """

    stacks: Sequence[nn.Sequential]
    low: torch.Tensor
    span: torch.Tensor
    losses: torch.Tensor
    rates: Sequence[float]
    constant_losses: torch.Tensor

    @property
    def remarks(self) -> list[str]:
        """For each target an empty string, or a warning that its final loss exceeds that of a constant map."""
        return [
            f"after {EPOCHS} epochs at learning rate {rate:g} the readout errs more than a constant would"
            if float(loss) > float(constant)
            else ""
            for rate, loss, constant in zip(self.rates, self.losses[-1], self.constant_losses, strict=True)
        ]

    @torch.inference_mode()
    def predict(self, features: Features) -> torch.Tensor:
        """Return the predicted maps before resizing, float32 [n, targets, side, side]."""
        maps = torch.cat([_forward(self.stacks, batch) for batch in features.batches(BATCH)])
        return self.low[:, None, None] + self.span[:, None, None] * maps


def fit_sgd(
    training: Training, *, kernel: int = 3, depth: int = 1, padding: int = 0, bounded: bool = True
) -> ConvolutionalReadout:
    """Train the authors' readout as in their code, or with `bounded=False` as in their text.

    It has `depth` k×k convolutions over all taps, aligned to the grid, k being odd; each adds `padding` cells of zeros
    on every side. Hidden ones keep the number of channels and are followed by BatchNorm (if bounded) and ReLU. In the
    code, BatchNorm and a sigmoid follow the last; the text mentions neither. The loss is the mean squared error at
    image size. Training takes fifteen epochs with batches of 32, learning rate 0.1 and 0.01 from the eleventh epoch on,
    momentum 0.9 and weight decay 1e-4 on all parameters. Weights are initialised as by Glorot & Bengio (uniform) from
    the training's seed, biases are 0.

    A sigmoid returns values in [0, 1], so a target with other values is scaled to that range for training. The text
    states no learning rate, and without BatchNorm 0.1 diverges on most networks; it is then divided by ten until the
    training loss falls. Where positions are masked, the loss is computed on the readout's own grid, since resizing
    would mix them with others.

    Raises:
        PosbenchError: if an unbounded readout's loss falls at none of the learning rates.

    Source: Islam, Jia & Bruce (ICLR 2020), section 3.2, and the code that they published.
    """
    device = training.patterns.device
    side = training.features.grid + depth * (2 * padding - kernel + 1)
    targets = training.targets(side if training.held_out else training.image_size)
    low, high = torch.zeros(len(targets), device=device), torch.ones(len(targets), device=device)
    if bounded:
        low = low.minimum(training.patterns.amin(dim=(1, 2)))
        high = high.maximum(training.patterns.amax(dim=(1, 2)))
    scaled = (targets - low[:, None, None]) / (high - low)[:, None, None]
    fresh = _stack(training.features.channels, kernel, depth, padding, bounded, training.seed).to(device)
    if bounded:
        stacks, rates = [copy.deepcopy(fresh) for _ in targets], [RATE] * len(targets)
        losses = _train(stacks, training, scaled, RATE)
    else:
        stacks, losses, rates = _train_until_loss_falls(fresh, training, scaled)
    for stack in stacks:
        stack.eval()
    constant_losses = (scaled - scaled.nanmean(dim=(1, 2), keepdim=True)).square().nanmean(dim=(1, 2)).double().cpu()
    return ConvolutionalReadout(stacks, low, high - low, losses, rates, constant_losses)


def _train_until_loss_falls(
    fresh: nn.Sequential, training: Training, targets: torch.Tensor
) -> tuple[list[nn.Sequential], torch.Tensor, list[float]]:
    """Train a copy of a stack for each target, at a tenth of the learning rate until the target's loss falls.

    Returns:
        The stacks; the losses, float64 [epochs, targets]; and the learning rate of each target.
    """
    stacks = [fresh] * len(targets)
    losses = torch.full((EPOCHS, len(targets)), torch.nan, dtype=torch.float64)
    rates = [0.0] * len(targets)
    pending = list(range(len(targets)))
    for rate in (RATE * 0.1**reductions for reductions in range(1 + MAX_RATE_REDUCTIONS)):
        for i in pending:
            stacks[i], rates[i] = copy.deepcopy(fresh), rate
        losses[:, pending] = _train([stacks[i] for i in pending], training, targets[pending], rate)
        pending = [i for i in pending if not bool(losses[-1, i] <= losses[0, i])]
        if not pending:
            return stacks, losses, rates
    raise PosbenchError(f"the readout's loss does not fall at any learning rate from {RATE} to {rate:.0e}")


def _stack(channels: int, kernel: int, depth: int, padding: int, bounded: bool, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for remaining in reversed(range(depth)):
        # skip_init leaves torch's global random state unchanged.
        convolution: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, channels if remaining else 1, kernel, padding=padding
        )
        nn.init.xavier_uniform_(convolution.weight, generator=generator)
        convolution.bias.data.zero_()  # type: ignore[union-attr]
        layers.append(convolution)
        if bounded:
            layers.append(nn.BatchNorm2d(convolution.out_channels))
        if remaining:
            layers.append(nn.ReLU())
        elif bounded:
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


class _AlignedConvolution(torch.autograd.Function):
    """The first convolutions of all stacks, computed at the resolution of each tap."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, features: Features, kernel: int, padding: int) -> torch.Tensor:
        ctx.inputs = features, kernel, padding
        return convolve(features, weight, kernel, padding)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        features, kernel, padding = ctx.inputs
        return adjoint(features, gradient, kernel, padding), None, None, None


def _forward(stacks: Sequence[nn.Sequential], features: Features) -> torch.Tensor:
    """Return the output of each stack for the aligned features: [n, targets, side, side]."""
    # The first convolutions of all stacks are computed as one, which is several times faster.
    first = [cast(nn.Conv2d, stack[0]) for stack in stacks]
    weight, bias = (torch.cat([getattr(layer, name) for layer in first]) for name in ("weight", "bias"))
    kernel, padding = int(first[0].kernel_size[0]), int(first[0].padding[0])
    if first[0].out_channels == 1:
        maps = _AlignedConvolution.apply(weight.permute(1, 2, 3, 0).flatten(1), features, kernel, padding)
        parts = (maps + bias[:, None, None, None]).unsqueeze(2)
    else:
        # A hidden layer has as many maps as there are channels, so mixing before resizing would save nothing.
        parts = F.conv2d(features.aligned(), weight, bias, padding=padding).chunk(len(stacks), dim=1)
    return torch.cat([stack[1:](part) for stack, part in zip(stacks, parts, strict=True)], dim=1)


def _mean_squared_error(targets: torch.Tensor, map_side: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from maps [n, targets, map_side, map_side] to their mean squared error [targets].

    The error is that of the maps resized to the targets' size, computed on the small grid. Resizing is linear, R d Rᵀ.
    With d = a + e for the target a on the small grid, whose residual is r = R a Rᵀ − y, the squared error
    ‖R d Rᵀ − y‖² is ‖r‖² + 2⟨e, Rᵀ r R⟩ + ⟨e, RᵀR e RᵀR⟩. Targets may hold NaN, at masked cells, only if
    side = map_side.
    """
    side = targets.shape[-1]
    if side == map_side:
        # NaN targets are replaced, since they would make all gradients NaN.
        fitted, known = (~targets.isnan()).float(), targets.nan_to_num()
        return lambda maps: ((maps - known).square() * fitted).mean(0).sum(dim=(1, 2)) / fitted.sum(dim=(1, 2))
    near = resize(targets, map_side)
    identity = torch.eye(map_side, device=targets.device)
    rows = F.interpolate(identity[None], size=side, mode="linear", align_corners=False)[0].T
    residual = rows @ near @ rows.T - targets
    constant, slope, twice = residual.square().sum(dim=(1, 2)), rows.T @ residual @ rows, rows.T @ rows

    def error(maps: torch.Tensor) -> torch.Tensor:
        e = maps - near
        return (constant + (e * (2 * slope + twice @ e @ twice)).mean(0).sum(dim=(1, 2))) / side**2

    return error


def _train(stacks: Sequence[nn.Sequential], training: Training, targets: torch.Tensor, rate: float) -> torch.Tensor:
    """Train stacks side by side; return the mean loss of each epoch, float64 [epochs, targets], NaN if it diverged."""
    parameters = [parameter for stack in stacks for parameter in stack.parameters()]
    # SGD updates each parameter by itself, so one optimiser gives the same result as one a target.
    optimiser = torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    order = torch.Generator().manual_seed(training.seed)
    images = len(training.features)
    losses = torch.full((EPOCHS, len(stacks)), torch.nan, dtype=torch.float64)
    error: Callable[[torch.Tensor], torch.Tensor] | None = None
    for epoch in range(EPOCHS):
        if epoch == DECAY_EPOCH:
            optimiser.param_groups[0]["lr"] = rate / 10
        total = torch.zeros(len(stacks), dtype=torch.float64, device=targets.device)
        shuffled = torch.randperm(images, generator=order).tolist()
        for start in range(0, images, BATCH):
            batch = shuffled[start : start + BATCH]
            maps = _forward(stacks, training.features.of_images(batch))
            error = error or _mean_squared_error(targets, maps.shape[-1])
            loss = error(maps)
            optimiser.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(batch)
        losses[epoch] = (total / images).cpu()
        if not bool(losses[epoch].isfinite().any()):
            break
    return losses
