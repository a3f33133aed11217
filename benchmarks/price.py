"""Measure the cost of a job relative to one plain forward pass over its images.

    python -m benchmarks.price [--backbones A,B] [--train 256] [--test 64] [--rounds 3] [--precision fp32] [--no-extras]

Prints a Markdown table, a network a line: a bare job (five targets, every metric of a cell, intervals, stored) over
timm's plain forward pass on the same images in memory, in the same precision and layout; and the cost of five more
targets, a second seed of the readout and a tenth metric. The job includes cutting its images. There are two plain
passes: the usual one, in batches of 32 images (128 on a GPU), and the one of jobs, in their batch size and in a process
that keeps freed memory. Each has a process of its own. Passes and jobs alternate, and a job is compared with the mean
of the passes before and after it, since a machine's speed drifts. The median of these ratios counts; seconds are those
of the round whose first ratio is nearest to its median.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import timm
import torch

from posbench.bench.config import RunConfig
from posbench.bench.engine import Engine, JobResult
from posbench.bench.plan import Plan, make_plan
from posbench.bench.resolve import resolve_config
from posbench.core.device import resolve_device, resolve_precision
from posbench.core.malloc import keep_freed_memory
from posbench.data.crops import TEST, TRAIN, Crops, load_crops, split_photographs
from posbench.network import forward
from posbench.network.build import build, normalise
from posbench.plugin.components import Backbone, Images, Metric, Target
from posbench.plugin.registry import load_registry
from posbench.runner.observers import JobObserver
from posbench.store.store import Store

REGISTRY = load_registry()
SIZE = 224
#: Batch size of the usual plain pass.
BATCH = {"cpu": 32, "cuda": 128}
METRICS = ("spc", "mae", "r2")


@dataclass(frozen=True)
class JobTiming:
    """The time and the result of one job.

    Attributes:
        total: all seconds but those of building the network.
        result: its outcomes, and its seconds by stage.
    """

    total: float
    result: JobResult

    def stages(self, *names: str) -> float:
        """Return the seconds of these stages together."""
        return sum(self.result.seconds.get(name, 0.0) for name in names)

    def scores(self, metric: str) -> dict[str, float]:
        """Return one metric by target."""
        return {
            outcome.identity["target"]["name"]: score.value
            for outcome in self.result.outcomes
            for score in outcome.scores
            if score.metric == metric
        }


def cut_photos(train: int, test: int) -> tuple[Crops, Crops]:
    """Return training and test crops of the packaged photographs, disjoint by photograph."""
    photos = REGISTRY.get(Images, "photos")
    for_training, for_testing = split_photographs(photos, photos, test)
    return (
        load_crops(photos, for_training, TRAIN, train, SIZE, surrounded=False),
        load_crops(photos, for_testing, TEST, test, SIZE, surrounded=False),
    )


class Bench:
    """One network on the packaged photographs under zero padding."""

    def __init__(self, backbone: str, train: int, test: int, precision: str = "fp32") -> None:
        self.device = resolve_device("auto")
        self.precision = resolve_precision(precision, self.device)
        self.image_size = SIZE
        self.backbone = REGISTRY.get(Backbone, backbone)
        self._config = RunConfig(
            backbones=(backbone,), paddings=("zero",), train_count=train, test_count=test, precision=self.precision
        )
        plan = self._plan()
        self.targets = [cell.target for cell in plan.cells]
        weights = plan.cells[0].job.weights
        self.trained = weights.seed is None
        self.network = build(self.backbone, weights).to(self.device)
        self.crops = cut_photos(train, test)
        self._engine: Engine | None = None

    def _plan(self, targets: Sequence[Target] = (), metrics: Sequence[Metric] = (), **changes: object) -> Plan:
        inputs = resolve_config(replace(self._config, **changes), REGISTRY, download=False).plan_inputs  # type: ignore[arg-type]
        return make_plan(replace(inputs, targets=[*inputs.targets, *targets], metrics=[*inputs.metrics, *metrics]))

    def job(
        self,
        *,
        readouts: str = "ridge",
        seeds: Sequence[int] = (0,),
        targets: Sequence[Target] = (),
        metrics: Sequence[Metric] = (),
    ) -> JobTiming:
        """Compute and store one job like a run does."""
        plan = self._plan(targets, metrics, readouts=(readouts,), seeds=tuple(seeds))
        [task] = plan.tasks()
        if self._engine is None:
            self._engine = Engine(self.device)
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
            start = time.perf_counter()
            self._engine.expect([task.job])
            result = self._engine.compute(task, plan.metrics, JobObserver())
            store.save(task.job, task.cells, result.outcomes, result.provenance, result.measurements)
            seconds = time.perf_counter() - start
        if result.failures:
            raise RuntimeError(result.failures[0])
        return JobTiming(seconds - result.seconds.get("network", 0.0), result)


def worker_process(*, keep_memory: bool = False) -> ProcessPoolExecutor:
    """Return a pool of one new process; with `keep_memory` it keeps freed memory, like processes that run jobs."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=keep_freed_memory if keep_memory else None)


@cache
def _model_and_images(backbone: str, train: int, test: int) -> tuple[torch.nn.Module, Backbone, np.ndarray]:
    """Return timm's network, its record, and the images of a job."""
    pixels = np.concatenate([crops.pixels for crops in cut_photos(train, test)])
    model = timm.create_model(backbone).eval().to(resolve_device("auto"), memory_format=torch.channels_last)
    return model, REGISTRY.get(Backbone, backbone), pixels


@torch.inference_mode()
def plain_pass(backbone: str, train: int, test: int, precision: str, batch_size: int) -> float:
    """Return the seconds of a plain pass over the images of a job, in batches."""
    model, record, pixels = _model_and_images(backbone, train, test)
    device = resolve_device("auto")
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=resolve_precision(precision, device) == "bf16"):
        for first in range(0, len(pixels), batch_size):
            model(normalise(torch.from_numpy(pixels[first : first + batch_size]).to(device), record))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def five_more() -> list[Target]:
    """Return five smooth targets that no plugin has."""

    def wave(number: int) -> Target:
        def draw(size: int) -> np.ndarray:
            axis = np.cos(np.pi * number * (np.arange(size) + 0.5) / size) / 2 + 0.5
            return np.outer(axis, axis[::-1])

        return Target(name=f"wave{number}", summary="", version="1", draw=draw)

    return [wave(number) for number in range(1, 6)]


def more_metrics(count: int) -> list[Metric]:
    """Return the mean absolute error under `count` other names."""
    mae = REGISTRY.get(Metric, "mae")
    return [replace(mae, name=f"mae{number}") for number in range(count)]


def machine_description() -> str:
    """Name the processor or GPU, the threads, and the versions of torch and timm."""
    name = torch.cuda.get_device_name() if resolve_device("auto") == "cuda" else platform.processor()
    threads = f"{torch.get_num_threads()} threads"
    return f"{name or platform.machine()}, {threads}; torch {torch.__version__}, timm {timm.__version__}"


def _shares(bench: Bench, job: JobTiming) -> list[str]:
    """Return the cost of five more targets, a tenth metric and a second seed of `sgd`, in percent of a job."""
    stages = ("readout", "scoring")
    ten_targets = bench.job(targets=five_more()).stages(*stages)
    nine_metrics, ten_metrics = (bench.job(metrics=more_metrics(n - len(METRICS))).stages("scoring") for n in (9, 10))
    shares = [(ten_targets - job.stages(*stages)) / job.total, (ten_metrics - nine_metrics) / job.total]
    # With an untrained network a second seed is a second network.
    if bench.trained:
        once, twice = (bench.job(readouts="sgd", seeds=range(n)).total for n in (1, 2))
        shares.append((twice - once) / once)
    return [f"{100 * share:+.1f} %" for share in shares] + ["–"] * (3 - len(shares))


def table_row(backbone: str, train: int, test: int, rounds: int, precision: str, *, extras: bool) -> list[str]:
    """Return the entries of one network."""
    bench = Bench(backbone, train, test, precision)
    with worker_process() as usual, worker_process(keep_memory=True) as like_jobs:
        processes = [(usual, BATCH[bench.device]), (like_jobs, forward.BATCH[bench.device])]

        def plain_passes() -> list[float]:
            return [
                process.submit(plain_pass, backbone, train, test, precision, batch_size).result()
                for process, batch_size in processes
            ]

        bench.job()
        plain_passes()
        jobs, passes = [], [plain_passes()]
        for _ in range(rounds):
            jobs.append(bench.job())
            passes.append(plain_passes())
    # For each job, the mean of the passes before and after it.
    means = [[sum(pair) / 2 for pair in zip(*neighbours, strict=True)] for neighbours in pairwise(passes)]
    ratios = [[job.total / mean for mean in both] for job, both in zip(jobs, means, strict=True)]
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    number = min(range(rounds), key=lambda i: abs(ratios[i][0] - medians[0]))
    job = jobs[number]
    shares = _shares(bench, job) if extras else ["–"] * 3
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in job.result.seconds.items())
    return [
        f"{backbone}, {bench.precision}",
        *(f"{1000 * mean / (train + test):.1f} ms" for mean in means[number]),
        *(f"**{median:.2f}**" for median in medians),
        *shares,
        f"{job.total:.1f} s: {stages}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,resnet50,vgg16")
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--extras", action=argparse.BooleanOptionalAction, default=True, help="the last three ratios")
    options = parser.parse_args()
    keep_freed_memory()  # like the command line
    images = f"{options.train} training and {options.test} test images of 224 px"
    print(f"{machine_description()}; {images}, {options.rounds} rounds\n")
    kinds = ("plain pass as usual", "plain pass as jobs do it")
    headings = ["network", *(f"{kind}, an image" for kind in kinds), *(f"job over {kind}" for kind in kinds)]
    headings += ["five more targets", "a tenth metric", "a second seed of `sgd`", "the job, by stage"]
    print("| " + " | ".join(headings) + " |\n|---|" + "---:|" * 7 + "---|")
    for backbone in options.backbones.split(","):
        entries = table_row(
            *(backbone, options.train, options.test, options.rounds, options.precision), extras=options.extras
        )
        print("| " + " | ".join(entries) + " |", flush=True)


if __name__ == "__main__":
    main()
