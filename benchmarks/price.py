"""What a job costs beside the single forward pass that physics asks for.

    python -m benchmarks.price [--backbones A,B] [--train 256] [--test 64] [--rounds 3] [--precision fp32] [--no-extras]

Prints a Markdown table, a network a line: a bare job (five targets, every metric of a cell, intervals, stored) over
timm's plain forward pass on the same images in memory, in the same precision and layout; and what five more targets, a
second seed of the readout and a tenth metric add. The job includes cutting its images. There are two plain passes: as
is usual, of 32 images at a time (128 on a GPU); and as jobs do it, of as many as they take, in a process that keeps
freed memory. Each has a process of its own. They and jobs take turns, and a job is held against the mean of the passes
before and after it, since a machine's speed drifts; the median of these ratios counts, and seconds are of the round
whose first ratio is next to its median.
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
from posbench.bench.plan import Job, Plan, make_plan
from posbench.bench.resolve import resolve_config
from posbench.core.device import configure_torch, resolve_device, resolve_precision
from posbench.core.malloc import keep_freed_memory
from posbench.data.crops import cut
from posbench.network import forward as passes
from posbench.network.build import build, normalise
from posbench.plugin.components import Backbone, Images, Metric, Target
from posbench.plugin.registry import load_registry
from posbench.store.store import Store

REGISTRY = load_registry()
SIZE = 224
#: Images to a plain pass, as is usual.
BATCH = {"cpu": 32, "cuda": 128}
METRICS = ("spc", "mae", "r2")


class SilentListener:
    """An observer that is told and says nothing."""

    def started(self, job: Job) -> None: ...

    def saw(self, job: Job, images: int) -> None: ...

    def finished(self, job: Job, result: JobResult) -> None: ...


@dataclass(frozen=True)
class Measured:
    """One job as it ran.

    Attributes:
        total: seconds, all of them but building the network.
        result: what came of it.
    """

    total: float
    result: JobResult

    def stages(self, *names: str) -> float:
        """Seconds in these stages."""
        return sum(self.result.seconds.get(name, 0.0) for name in names)

    def scores(self, metric: str) -> dict[str, float]:
        """A metric by target."""
        return {
            one.identity["target"]["name"]: score.value
            for one in self.result.outcomes
            for score in one.scores
            if score.metric == metric
        }


class Bench:
    """One network on the packaged photographs under zero padding."""

    def __init__(self, backbone: str, train: int, test: int, precision: str = "fp32") -> None:
        self.device = resolve_device("auto")
        self.precision = resolve_precision(precision, self.device)
        self.image_size = SIZE
        self.backbone = REGISTRY.get(Backbone, backbone)
        self._selection = RunConfig(
            backbones=(backbone,), paddings=("zero",), train_count=train, test_count=test, precision=self.precision
        )
        plan = self._plan()
        self.targets = [cell.target for cell in plan.cells]
        weights = plan.cells[0].job.weights
        self.trained = weights.seed is None
        self.network = build(self.backbone, weights).to(self.device)
        photos = REGISTRY.get(Images, "photos")
        self.windows = cut(photos, photos, train, test, self.image_size)
        self._engine: Engine | None = None

    def _plan(self, targets: Sequence[Target] = (), metrics: Sequence[Metric] = (), **changes: object) -> Plan:
        chosen = resolve_config(replace(self._selection, **changes), REGISTRY, download=False).plan_inputs  # type: ignore[arg-type]
        more = {"targets": [*chosen.targets, *targets], "metrics": [*chosen.metrics, *metrics]}
        return make_plan(replace(chosen, **more))

    def job(
        self,
        *,
        readouts: str = "ridge",
        seeds: Sequence[int] = (0,),
        targets: Sequence[Target] = (),
        metrics: Sequence[Metric] = (),
    ) -> Measured:
        """Compute and store one job, as a run does."""
        plan = self._plan(targets, metrics, readouts=(readouts,), seeds=tuple(seeds))
        [task] = plan.tasks()
        if self._engine is None:
            configure_torch(self.device)
            self._engine = Engine(self.device)
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
            start = time.perf_counter()
            self._engine.expect([task.job])
            result = self._engine.compute(task, plan.metrics, SilentListener())
            store.save(task.job, task.cells, result.outcomes, result.provenance, result.readings)
            seconds = time.perf_counter() - start
        if result.failures:
            raise RuntimeError(result.failures[0])
        return Measured(seconds - result.seconds.get("network", 0.0), result)


def elsewhere(*, keeping: bool = False) -> ProcessPoolExecutor:
    """One other process, in which freed memory goes back to the system, as in most, or is kept, as where jobs run."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=keep_freed_memory if keeping else None)


@cache
def _bare(backbone: str, train: int, test: int) -> tuple[torch.nn.Module, Backbone, np.ndarray]:
    """A network as timm makes it, and the images of a job."""
    photos = REGISTRY.get(Images, "photos")
    pixels = np.concatenate([one.pixels for one in cut(photos, photos, train, test, SIZE)])
    model = timm.create_model(backbone).eval().to(resolve_device("auto"), memory_format=torch.channels_last)
    return model, REGISTRY.get(Backbone, backbone), pixels


@torch.inference_mode()
def plain(backbone: str, train: int, test: int, precision: str, batch_size: int) -> float:
    """Seconds of a plain pass over the images of a job, so many at a time."""
    model, record, pixels = _bare(backbone, train, test)
    device = resolve_device("auto")
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=resolve_precision(precision, device) == "bf16"):
        for first in range(0, len(pixels), batch_size):
            model(normalise(torch.from_numpy(pixels[first : first + batch_size]).to(device), record))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def five_more() -> list[Target]:
    """Smooth targets that no plugin has."""

    def wave(number: int) -> Target:
        def draw(size: int) -> np.ndarray:
            axis = np.cos(np.pi * number * (np.arange(size) + 0.5) / size) / 2 + 0.5
            return np.outer(axis, axis[::-1])

        return Target(name=f"wave{number}", summary="", version="1", draw=draw)

    return [wave(number) for number in range(1, 6)]


def more_metrics(count: int) -> list[Metric]:
    """The mean absolute error under other names."""
    mae = REGISTRY.get(Metric, "mae")
    return [replace(mae, name=f"mae{number}") for number in range(count)]


def about() -> str:
    """The machine, in words."""
    name = torch.cuda.get_device_name() if resolve_device("auto") == "cuda" else platform.processor()
    threads = f"{torch.get_num_threads()} threads"
    return f"{name or platform.machine()}, {threads}; torch {torch.__version__}, timm {timm.__version__}"


def _shares(bench: Bench, job: Measured) -> list[str]:
    """What five more targets, a tenth metric and a second seed of `sgd` add to a job."""
    after = ("readout", "scoring")
    ten = bench.job(targets=five_more()).stages(*after)
    nine, tenth = (bench.job(metrics=more_metrics(n - len(METRICS))).stages("scoring") for n in (9, 10))
    shares = [(ten - job.stages(*after)) / job.total, (tenth - nine) / job.total]
    # An untrained network's seed is its readouts' too: another one is another network.
    if bench.trained:
        once, twice = (bench.job(readouts="sgd", seeds=range(n)).total for n in (1, 2))
        shares.append((twice - once) / once)
    return [f"{100 * share:+.1f} %" for share in shares] + ["–"] * (3 - len(shares))


def line(backbone: str, train: int, test: int, rounds: int, precision: str, *, extras: bool) -> list[str]:
    """The entries of one network."""
    bench = Bench(backbone, train, test, precision)
    with elsewhere() as usual, elsewhere(keeping=True) as keeping:
        turns = [(usual, BATCH[bench.device]), (keeping, passes.BATCH[bench.device])]

        def floor() -> list[float]:
            return [at.submit(plain, backbone, train, test, precision, size).result() for at, size in turns]

        bench.job()
        floor()
        jobs, floors = [], [floor()]
        for _ in range(rounds):
            jobs.append(bench.job())
            floors.append(floor())
    between = [[sum(pair) / 2 for pair in zip(*two, strict=True)] for two in pairwise(floors)]
    ratios = [[job.total / floor for floor in both] for job, both in zip(jobs, between, strict=True)]
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    number = min(range(rounds), key=lambda i: abs(ratios[i][0] - medians[0]))
    job = jobs[number]
    shares = _shares(bench, job) if extras else ["–"] * 3
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in job.result.seconds.items())
    return [
        f"{backbone}, {bench.precision}",
        *(f"{1000 * floor / (train + test):.1f} ms" for floor in between[number]),
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
    keep_freed_memory()  # as the command line does
    print(f"{about()}; {options.train} training and {options.test} test images of 224 px, {options.rounds} rounds\n")
    kinds = ("plain pass as usual", "plain pass as jobs do it")
    headings = ["network", *(f"{kind}, an image" for kind in kinds), *(f"job over {kind}" for kind in kinds)]
    headings += ["five more targets", "a tenth metric", "a second seed of `sgd`", "the job, by stage"]
    print("| " + " | ".join(headings) + " |\n|---|" + "---:|" * 7 + "---|")
    for backbone in options.backbones.split(","):
        entries = line(
            *(backbone, options.train, options.test, options.rounds, options.precision), extras=options.extras
        )
        print("| " + " | ".join(entries) + " |", flush=True)


if __name__ == "__main__":
    main()
