"""Measure the cost of each padding strategy: its forward time over that of `zero`, measured alternately in one run.

    python benchmarks/padding_cost.py [--backbones A,B] [--paddings A,B] [--precisions fp32,bf16] [--rounds N]

Prints a Markdown table: the fastest pass under each strategy over the fastest under `zero`. The two alternate on the
same 224-pixel images, in channels-last order, in a process of their own that keeps freed memory, as processes that run
jobs do. Features are discarded. `surround` runs larger images and is not expected near 1; a strategy that cannot be
applied at this size has no entry.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from posbench.core.device import resolve_device
from posbench.core.errors import Inapplicable
from posbench.core.malloc import keep_freed_memory
from posbench.data.crops import TRAIN, Crops, load_crops
from posbench.network.build import build
from posbench.network.forward import ForwardPass
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Padding
from posbench.plugin.registry import load_registry

SIZE = 224
REGISTRY = load_registry()


def seconds(forward: ForwardPass, crops: Crops) -> float:
    """Return the seconds of one pass."""
    start = time.perf_counter()
    for _ in forward.batches(crops):
        pass
    if forward.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def pass_times(backbone: str, precision: str, name: str, rounds: int, images: int) -> tuple[float, float] | None:
    """Return milliseconds per image under `zero` and under a strategy, or None if it cannot be applied."""
    keep_freed_memory()
    record, device = REGISTRY.get(Backbone, backbone), resolve_device("auto")
    network = build(record, Weights("random:0", seed=0)).to(device)
    crops = load_crops(REGISTRY.get(Images, "leaves"), [], TRAIN, images, SIZE, surrounded=True)
    passes = [ForwardPass(network, record, REGISTRY.get(Padding, pad), precision, device) for pad in ("zero", name)]
    try:
        for forward in passes:
            forward.prepare(crops)
    except Inapplicable:
        return None
    times = [[seconds(forward, crops) for forward in passes] for _ in range(rounds + 1)][1:]  # the first round warms up
    zero, other = (1000 * min(column) / images for column in zip(*times, strict=True))
    return zero, other


def column(backbone: str, paddings: Sequence[str], precision: str, rounds: int, images: int) -> list[str]:
    """Return the entries of one network: the least milliseconds per image under `zero`, and each strategy's ratio."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(pass_times, backbone, precision, name, rounds, images) for name in paddings]
        times = [future.result() for future in futures]
    least = min(pair[0] for pair in times if pair)
    return [f"{least:.1f} ms", *(f"{pair[1] / pair[0]:.2f}" if pair else "–" for pair in times)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward time of each padding strategy over that of zero.")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,resnet50,vgg16")
    parser.add_argument("--paddings", default=",".join(REGISTRY.names("padding")))
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=32)
    options = parser.parse_args()
    device = resolve_device("auto")
    pairs = [(b, p) for p in options.precisions.split(",") for b in options.backbones.split(",")]
    paddings = options.paddings.split(",")
    columns = [column(b, paddings, p, options.rounds, options.images) for b, p in pairs]
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if device == "cuda" else cpu
    print(f"{machine}, torch {torch.__version__}, {options.images} images a pass, {options.rounds} rounds\n")
    print("| padding | " + " | ".join(f"{b}, {p}" for b, p in pairs) + " |")
    print("|---|" + "---:|" * len(pairs))
    lines = ["`zero`, an image", *paddings]
    for line, entries in zip(lines, zip(*columns, strict=True), strict=True):
        print(f"| {line} | " + " | ".join(entries) + " |")


if __name__ == "__main__":
    main()
