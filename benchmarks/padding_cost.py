"""What each padding strategy costs: its forward time over that of `zero`, measured turn by turn in one run.

    python benchmarks/padding_cost.py [--backbones A,B] [--precisions fp32,bf16] [--rounds N]

Prints a Markdown table of the fastest pass under each strategy over the fastest under `zero`, strategies taking turns
on the same 224-pixel images: memory in channels-last order, features thrown away. `surround` runs larger images and is
not expected near 1; a strategy that cannot be applied at this size has no entry.
"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from posbench.components import Backbone, Padding
from posbench.errors import Inapplicable
from posbench.machine import resolve_device
from posbench.networks import build
from posbench.passes import Pass
from posbench.registry import load_registry
from posbench.weights import Weights
from posbench.windows import Windows, cut

SIZE = 224
REGISTRY = load_registry()
STRATEGIES = [REGISTRY.get(Padding, name) for name in REGISTRY.names("padding")]


def seconds(run: Pass, windows: Windows) -> float:
    """The time of one pass."""
    start = time.perf_counter()
    for _ in run.batches(windows):
        pass
    if run.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def column(backbone: str, precision: str, rounds: int, images: int, device: str) -> list[str]:
    """The entries of one network: milliseconds an image under `zero`, then the ratio of each strategy."""
    record = REGISTRY.get(Backbone, backbone)
    network = build(record, Weights("random:0", seed=0)).to(device)
    leaves = REGISTRY.images("leaves")
    windows = cut(leaves, leaves, images, 1, SIZE, pieces=True)[0]
    runs = []
    for strategy in STRATEGIES:
        run = Pass(network, record, strategy, precision, device)
        try:
            run.prepare(windows)
            runs.append(run)
        except Inapplicable:
            continue
    times = [[seconds(run, windows) for run in runs] for _ in range(rounds + 1)][1:]  # the first round warms up
    fastest = {run.padding: min(column) for run, column in zip(runs, zip(*times, strict=True), strict=True)}
    zero = fastest[STRATEGIES[0]]
    ratios = [f"{fastest[s] / zero:.2f}" if s in fastest else "–" for s in STRATEGIES]
    return [f"{zero / images * 1000:.1f} ms", *ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward time of each padding strategy over that of zero.")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,resnet50,vgg16")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=32)
    options = parser.parse_args()
    device = resolve_device("auto")
    pairs = [(b, p) for p in options.precisions.split(",") for b in options.backbones.split(",")]
    columns = [column(b, p, options.rounds, options.images, device) for b, p in pairs]
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if device == "cuda" else cpu
    print(f"{machine}, torch {torch.__version__}, {options.images} images a pass, {options.rounds} rounds\n")
    print("| padding | " + " | ".join(f"{b}, {p}" for b, p in pairs) + " |")
    print("|---|" + "---:|" * len(pairs))
    lines = ["`zero`, an image", *(strategy.name for strategy in STRATEGIES)]
    for line, entries in zip(lines, zip(*columns, strict=True), strict=True):
        print(f"| {line} | " + " | ".join(entries) + " |")


if __name__ == "__main__":
    main()
