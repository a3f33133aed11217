"""Measure the number of position modes by training images and by penalty, on training images and held out.

    python benchmarks/position_modes.py [--backbone tf_efficientnet_lite0] [--counts 16,32,64,128,256]

Prints two Markdown tables of effective numbers of position modes on leaves: by the number of training images, on the
training images themselves and on other images; and by the penalty, on other images.
"""

from __future__ import annotations

import argparse

import torch

from posbench.bench.plan import grid_side
from posbench.builtin.metrics.modes import fit_modes
from posbench.core.statistics import interval
from posbench.data.crops import TEST, TRAIN, load_crops
from posbench.network.build import build
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.network.weights import Request, resolve
from posbench.plugin.components import Backbone, Images, Padding
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry

SIZE, TESTED = 224, 64
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
REGISTRY = load_registry()


def features(backbone: Backbone, padding: str, count: int) -> tuple[Features, Features]:
    """Return the features of `count` training leaves and of the test leaves under a padding."""
    leaves = REGISTRY.get(Images, "leaves")
    roles = ((TRAIN, count), (TEST, TESTED))
    train, test = (load_crops(leaves, [], role, images, SIZE, surrounded=False) for role, images in roles)
    weights, _ = resolve(backbone, Request(), [0], download=False)
    forward = ForwardPass(build(backbone, weights[0]), backbone, REGISTRY.get(Padding, padding))
    return extract(forward, train, grid=grid_side(SIZE)), extract(forward, test, grid=grid_side(SIZE))


def mean_text(values: torch.Tensor) -> str:
    """Return the mean over images, ± half the width of its 95 % interval."""
    mean, _, hi = interval(values.tolist())
    return f"{mean:.2f} ±{(hi or mean) - mean:.2f}"


def line(label: str, entries: list[str]) -> str:
    return f"| {label} | " + " | ".join(entries) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--counts", default="16,32,64,128,256", help="of training images")
    options = parser.parse_args()
    backbone, counts = REGISTRY.get(Backbone, options.backbone), list(map(int, options.counts.split(",")))
    by_padding = {padding: features(backbone, padding, max(counts)) for padding in ("zero", "circular")}
    print(line("training images", list(map(str, counts))), line("---", ["---:"] * len(counts)), sep="\n")
    for padding, (train, test) in by_padding.items():
        fitted = [fit_modes(train.of_images(slice(count))) for count in counts]
        print(line(f"{padding}, on the training images", [f"{float(modes.spectrum.sum()):.2f}" for modes in fitted]))
        print(line(f"{padding}, held out", [mean_text(modes.read(test)) for modes in fitted]), flush=True)
    print("\n" + line("penalty λ", list(map(str, PENALTIES))), line("---", ["---:"] * len(PENALTIES)), sep="\n")
    for padding, (train, test) in by_padding.items():
        print(line(padding, [mean_text(fit_modes(train, penalty=penalty).read(test)) for penalty in PENALTIES]))


if __name__ == "__main__":
    main()
