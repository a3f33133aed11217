"""Compare the time of the authors' procedure, in plain PyTorch, with posbench on the same images.

    python -m benchmarks.peers [--backbone tf_efficientnet_lite0] [--train 256] [--test 64]

Islam, Jia & Bruce train one readout per target, and run the frozen network on every batch of every epoch: 15 epochs for
each of five targets, 75 passes over the training images, and one over the test images for each target. Implemented here
from that description: taps resized to 28×28, one 3×3 convolution, BatchNorm, sigmoid, mean squared error at image size,
SGD. Images are decoded and in memory for both. Prints a Markdown table. Of posbench's jobs the median of three counts,
two before the procedure and one after it. The procedure runs in a process of its own.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from benchmarks.price import Bench, JobTiming, machine_description, worker_process
from posbench.core.malloc import keep_freed_memory
from posbench.network.build import normalise

EPOCHS, BATCH, GRID = 15, 32, 28


def procedure(name: str, counts: tuple[int, int]) -> tuple[float, dict[str, float]]:
    """Run the authors' procedure; return its seconds and the mean SPC of each target."""
    bench = Bench(name, *counts)
    network, backbone, size = bench.network, bench.backbone, bench.image_size
    train, test = (normalise(torch.from_numpy(crops.pixels), backbone) for crops in bench.crops)

    @torch.no_grad()
    def features(images: torch.Tensor) -> torch.Tensor:
        taps = [F.interpolate(tap, (GRID, GRID), mode="bilinear", align_corners=True) for tap in network(images)]
        return torch.cat(taps, 1)

    channels = features(train[:1]).shape[1]
    scores = {}
    start = time.perf_counter()
    for target in bench.targets:
        pattern = torch.as_tensor(target.draw(size)).float()
        torch.manual_seed(0)
        readout = nn.Sequential(nn.Conv2d(channels, 1, 3), nn.BatchNorm2d(1), nn.Sigmoid())
        nn.init.xavier_uniform_(readout[0].weight)  # type: ignore[arg-type]
        optimiser = torch.optim.SGD(readout.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10])
        for _ in range(EPOCHS):
            for numbers in torch.randperm(len(train)).split(BATCH):
                drawn = F.interpolate(readout(features(train[numbers])), (size, size), mode="bilinear")
                optimiser.zero_grad()
                (drawn[:, 0] - pattern).square().mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            schedule.step()
        readout.eval()
        correlations = []
        with torch.no_grad():
            for images in test.split(BATCH):
                drawn = F.interpolate(readout(features(images)), (size, size), mode="bilinear")[:, 0]
                correlations += [
                    float(np.nan_to_num(spearmanr(image.flatten(), pattern.flatten())[0])) for image in drawn
                ]
        scores[target.name] = sum(correlations) / len(correlations)
    return time.perf_counter() - start, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--test", type=int, default=64)
    options = parser.parse_args()
    keep_freed_memory()  # like the command line
    images = options.train, options.test
    bench = Bench(options.backbone, *images)

    def run_jobs() -> dict[str, JobTiming]:
        return {readout: bench.job(readouts=readout) for readout in ("ridge", "sgd")}

    rounds = [run_jobs(), run_jobs()]
    with worker_process() as process:
        theirs, scores = process.submit(procedure, options.backbone, images).result()
    rounds.append(run_jobs())
    ours = {name: sorted((jobs[name] for jobs in rounds), key=lambda job: job.total)[1] for name in rounds[0]}
    print(f"{machine_description()}; {options.backbone}, {options.train} training and {options.test} test images\n")
    print("| | seconds | times posbench's `ridge` | SPC of " + ", ".join(scores) + " |")
    print("|---|---:|---:|---|")
    lines = [("the authors' procedure", theirs, scores)]
    lines += [(f"posbench, `{readout}`", job.total, job.scores("spc")) for readout, job in ours.items()]
    for label, seconds, by_target in lines:
        correlations = " ".join(f"{score:.2f}" for score in by_target.values())
        print(f"| {label} | {seconds:.1f} | {seconds / ours['ridge'].total:.1f} | {correlations} |")


if __name__ == "__main__":
    main()
