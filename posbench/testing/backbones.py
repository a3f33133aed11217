"""Whether a backbone, and a readout of its features, keep their contracts."""

from __future__ import annotations

import torch
from torch import nn

from posbench.plugin.components import Backbone, Readout
from posbench.plugin.features import Features, allocate_taps
from posbench.plugin.sandbox import isolated_state
from posbench.plugin.training import Training
from posbench.testing.assertions import expect, twice

#: How far a map may depend on the other images of its batch: what rounding makes, of the greatest value.
ROUNDING = 1e-3


def check_backbone(backbone: Backbone, *, image_size: int = 64) -> None:
    """Prove that a backbone builds, and returns the taps that its record promises.

    Built twice from one random state it is the same network. In evaluation mode it turns float32 images
    [2, 3, image_size, image_size] into a list of as many taps as the record says, each [2, channels, height, width],
    floating-point and finite; it leaves the images as they were, gives the same for the same images, and what it
    makes of an image does not depend on the others. Every file that a checkpoint finds is there.

    Raises:
        AssertionError: naming what was broken.
    """
    where = backbone.name
    network, again = (_built(backbone) for _ in range(2))
    states = (network.state_dict(), again.state_dict())
    alike = states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )
    expect(alike, where, "built again from the same random state, it is another network")
    x = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    given = x.clone()
    with torch.no_grad():
        taps, others = twice(lambda: network(x), where)
        expect(isinstance(taps, list | tuple), where, f"forward returned a {type(taps).__name__}, not a list of taps")
        expect(
            len(taps) == backbone.taps,
            where,
            f"forward returned {len(taps)} taps, where the record says {backbone.taps}",
        )
        for number, (tap, other) in enumerate(zip(taps, others, strict=True), 1):
            here = f"{where}, tap {number}"
            expect(torch.is_tensor(tap) and tap.ndim == 4, here, "it is no map [n, channels, height, width]")
            expect(len(tap) == 2, here, f"it holds {len(tap)} images of 2")
            expect(tap.is_floating_point(), here, f"it is {tap.dtype}")
            expect(bool(tap.isfinite().all()), here, "some values are not finite")
            expect(torch.equal(tap, other), here, "the same images gave another map")
        expect(torch.equal(x, given), where, "the images were changed")
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
    """Prove that a readout fits, and draws the maps that its record promises.

    On twelve images with three taps of two resolutions, laid out as in a run, and three targets: it draws float32
    [12, 3, side, side] with the side that `grid` says, finite; leaves features and targets as they were; draws the same
    when fitted again with the same seed; and what it draws of a target does not depend on the others.

    Raises:
        AssertionError: naming what was broken.
    """
    where, generator = readout.name, torch.Generator().manual_seed(0)
    sides = (grid, grid, grid // 2)
    taps = tuple(
        allocate_taps([(12, side, side, 4) for side in sides], [torch.float32] * len(sides), torch.device("cpu"))
    )
    for tap in taps:
        tap.normal_(generator=generator)
    axis = torch.linspace(0, 1, 256)
    patterns = torch.stack([axis.expand(256, 256), axis.expand(256, 256).T, axis[:, None] * axis])
    photographs = [f"photo-{i // 2}" for i in range(12)]
    training = Training(features=Features(taps, grid), photographs=photographs, patterns=patterns, image_size=8 * grid)
    given = [part.clone() for part in (*taps, patterns)]
    drawn, again = twice(lambda: readout.fit(training).predict(training.features), where)
    side = readout.grid(grid)
    expect(
        torch.is_tensor(drawn) and drawn.shape == (12, 3, side, side), where, f"it must draw [12, 3, {side}, {side}]"
    )
    expect(drawn.dtype == torch.float32, where, f"it draws {drawn.dtype}")
    expect(bool(drawn.isfinite().all()), where, "some values are not finite")
    expect(torch.equal(drawn, again), where, "fitted again with the same seed, it draws other maps")
    unchanged = all(torch.equal(before, now) for before, now in zip(given, (*taps, patterns), strict=True))
    expect(unchanged, where, "the features or the targets were changed")
    one = Training(features=training.features, photographs=photographs, patterns=patterns[1:2], image_size=8 * grid)
    alone = readout.fit(one).predict(training.features)
    near = (alone[:, 0] - drawn[:, 1]).abs().max() <= 1e-2
    expect(bool(near), where, "what it draws of a target depends on the other targets")
