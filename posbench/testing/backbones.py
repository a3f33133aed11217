"""Contract checks of backbones and readouts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from posbench.plugin.components import Backbone, Readout
from posbench.plugin.features import Features, allocate_taps
from posbench.plugin.sandbox import isolated_state
from posbench.plugin.training import Training
from posbench.testing.assertions import expect, same_tensors, twice

#: The largest difference, as a share of the maximum, that other images of the batch may make to a map: rounding.
ROUNDING = 1e-3


def check_backbone(backbone: Backbone, *, image_size: int = 64) -> None:
    """Raise AssertionError unless a backbone builds a network that returns the taps that its record promises.

    Built twice from the same random state, the network is the same. In evaluation mode it returns, for float32 images
    [2, 3, image_size, image_size], a list of as many taps as the record says, each [2, channels, height, width],
    floating-point and finite. It does not change the images, returns the same taps for the same images, and the taps
    of an image do not depend on the other images. Every file that a checkpoint finds exists.
    """
    where = backbone.name
    network, again = (_built(backbone) for _ in range(2))
    state, other_state = network.state_dict(), again.state_dict()
    alike = state.keys() == other_state.keys() and same_tensors(state.values(), (other_state[name] for name in state))
    expect(alike, where, "built again from the same random state, it is another network")
    x = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    original = x.clone()
    with torch.no_grad():
        taps, others = twice(lambda: network(x), where)
        expect(isinstance(taps, list | tuple), where, f"forward returned a {type(taps).__name__}, not a list of taps")
        number_of_taps = f"forward returned {len(taps)} taps, where the record says {backbone.taps}"
        expect(len(taps) == backbone.taps, where, number_of_taps)
        for number, (tap, other) in enumerate(zip(taps, others, strict=True), 1):
            here = f"{where}, tap {number}"
            expect(torch.is_tensor(tap) and tap.ndim == 4, here, "it is no map [n, channels, height, width]")
            expect(len(tap) == 2, here, f"it holds {len(tap)} images of 2")
            expect(tap.is_floating_point(), here, f"it is {tap.dtype}")
            expect(bool(tap.isfinite().all()), here, "some values are not finite")
            expect(torch.equal(tap, other), here, "the same images gave another map")
        expect(torch.equal(x, original), where, "the images were changed")
        for number, (tap, alone) in enumerate(zip(taps, network(x[:1]), strict=True), 1):
            near = (tap[:1] - alone).abs().max() <= ROUNDING * alone.abs().max()
            expect(bool(near), f"{where}, tap {number}", "what it makes of an image depends on the others of the batch")
    for checkpoint in backbone.checkpoints:
        path = checkpoint.find()
        expect(path is None or path.is_file(), where, f"checkpoint {checkpoint.label} finds {path}, which is no file")


def _built(backbone: Backbone) -> nn.Module:
    with isolated_state("check"):
        network = backbone.build()
    expect(isinstance(network, nn.Module), backbone.name, f"build returned a {type(network).__name__}, no nn.Module")
    return network.eval()


def check_readout(readout: Readout, *, grid: int = 12) -> None:
    """Raise AssertionError unless a readout can be fitted and predicts the maps that its record promises.

    On twelve images with three taps of two resolutions, laid out in memory as in a run, and three targets: predictions
    are float32 [12, 3, side, side], with the side that the record's `grid` returns, and finite. Features and targets
    are not changed. A second fit with the same seed gives the same predictions, and the predictions for a target do
    not depend on the other targets.
    """
    where, generator = readout.name, torch.Generator().manual_seed(0)
    shapes = [(12, side, side, 4) for side in (grid, grid, grid // 2)]
    allocated = allocate_taps(shapes, [torch.float32] * len(shapes), torch.device("cpu"))
    taps = tuple(tap.normal_(generator=generator) for tap in allocated)
    axis = torch.linspace(0, 1, 256)
    patterns = torch.stack([axis.expand(256, 256), axis.expand(256, 256).T, axis[:, None] * axis])
    photographs = [f"photo-{i // 2}" for i in range(12)]
    training = Training(features=Features(taps, grid), photographs=photographs, patterns=patterns, image_size=8 * grid)
    original = [part.clone() for part in (*taps, patterns)]
    predicted, again = twice(lambda: readout.fit(training).predict(training.features), where)
    side = readout.grid(grid)
    shaped = torch.is_tensor(predicted) and predicted.shape == (12, 3, side, side)
    expect(shaped, where, f"it must draw [12, 3, {side}, {side}]")
    expect(predicted.dtype == torch.float32, where, f"it draws {predicted.dtype}")
    expect(bool(predicted.isfinite().all()), where, "some values are not finite")
    expect(torch.equal(predicted, again), where, "fitted again with the same seed, it draws other maps")
    expect(same_tensors(original, (*taps, patterns)), where, "the features or the targets were changed")
    alone = readout.fit(replace(training, patterns=patterns[1:2])).predict(training.features)
    near = (alone[:, 0] - predicted[:, 1]).abs().max() <= 1e-2
    expect(bool(near), where, "what it draws of a target depends on the other targets")
