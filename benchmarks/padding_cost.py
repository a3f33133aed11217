"""What each padding strategy costs: its forward time over that of `zero`, measured turn by turn in one run.

    python benchmarks/padding_cost.py [--backbones A,B] [--paddings A,B] [--precisions fp32,bf16] [--rounds N]

Prints a Markdown table of the fastest pass under each strategy over the fastest under `zero`. The two take turns on the
same 224-pixel images, in a process of their own that keeps freed memory, as those do where jobs run; in channels-last
order, features thrown away. `surround` runs larger images and is not expected near 1; a strategy that cannot be applied
at this size has no entry.
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
from posbench.core.malloc import keep_freed_memory, request_huge_pages
from posbench.data.crops import Crops, cut
from posbench.network.build import build
from posbench.network.forward import ForwardPass
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Padding
from posbench.plugin.registry import load_registry

SIZE = 224
REGISTRY = load_registry()


def seconds(run: ForwardPass, windows: Crops) -> float:
    """The time of one pass."""
    start = time.perf_counter()
    for _ in run.batches(windows):
        pass
    if run.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def turns(backbone: str, precision: str, name: str, rounds: int, images: int) -> tuple[float, float] | None:
    """Milliseconds an image under `zero` and under a strategy, or nothing if that cannot be applied."""
    request_huge_pages()
    keep_freed_memory()
    record, device = REGISTRY.get(Backbone, backbone), resolve_device("auto")
    network = build(record, Weights("random:0", seed=0)).to(device)
    leaves = REGISTRY.get(Images, "leaves")
    windows = cut(leaves, leaves, images, 1, SIZE, pieces=True)[0]
    runs = [ForwardPass(network, record, REGISTRY.get(Padding, one), precision, device) for one in ("zero", name)]
    try:
        for run in runs:
            run.prepare(windows)
    except Inapplicable:
        return None
    times = [[seconds(run, windows) for run in runs] for _ in range(rounds + 1)][1:]  # the first round warms up
    zero, other = (1000 * min(column) / images for column in zip(*times, strict=True))
    return zero, other


def column(backbone: str, paddings: Sequence[str], precision: str, rounds: int, images: int) -> list[str]:
    """The entries of one network: the least milliseconds an image under `zero`, then the ratio of each strategy."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        asked = [pool.submit(turns, backbone, precision, name, rounds, images) for name in paddings]
        found = [one.result() for one in asked]
    least = min(pair[0] for pair in found if pair)
    return [f"{least:.1f} ms", *(f"{pair[1] / pair[0]:.2f}" if pair else "–" for pair in found)]


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
