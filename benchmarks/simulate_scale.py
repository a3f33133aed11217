"""What posbench itself costs at scale: planning, handing out, storing and resuming thousands of jobs.

    python -m benchmarks.simulate_scale [--backbones 1000] [--paddings 12] [--sources 2]

The plan, the loop that runs it, its claims and the store are the real ones; only the networks are not: an executor
hands back results of the size that real ones have, without computing anything. One job in a hundred fails, one in fifty
is skipped. The run is stopped half-way and given again. Durations are drawn, not slept, and tell how long so many
workers would have taken. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from torch import nn

from posbench.bench.engine import JobResult, Observer
from posbench.bench.plan import Cell, Plan, PlanInputs, Source, Task, groups, make_plan
from posbench.bench.records import Example, Outcome, Score
from posbench.bench.scoring import EXAMPLES, THUMBNAIL_SIDE
from posbench.core.errors import PosbenchError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.plugin.registry import load_registry
from posbench.runner.jobs import Claim, run
from posbench.runner.session import SilentListener
from posbench.store.store import Store

#: Of how many photographs each cell keeps a score, as `photos` and `leaves` have.
PHOTOGRAPHS = (15, 64)
#: The side of the map that each cell keeps.
SIDE = 26
#: Seconds of a job: the median, and how many times that one in six takes at least. From the README's table.
MEDIAN, SPREAD = 5.8, 2.5
#: Of so many jobs one fails, and one is skipped.
FAILS, SKIPPED = 100, 50


class Network(nn.Module):
    """What a backbone builds: it is asked for its smallest size, and never run."""

    def forward(self, x: object) -> list[object]:
        return [x]


def plan(backbones: int, paddings: int, sources: int) -> Plan:
    """So many networks under so many paddings on so many sources; five targets, three metrics."""
    registry = load_registry()

    def source(number: int) -> Source:
        images = Images(name=f"source-{number}", summary="", version="1", draw=lambda rng, size: np.zeros(0, np.uint8))
        return Source(images, f"{number:064x}", PHOTOGRAPHS[number % 2])

    chosen = [source(number) for number in range(sources)]
    return make_plan(
        PlanInputs(
            networks=[
                (
                    Backbone(name=f"network-{i:05}", summary="", version="1", build=Network, taps=4),
                    [Weights(f"file:{i:05}.pt", f"{i:064x}")],
                )
                for i in range(backbones)
            ],
            paddings=[Padding(name=f"padding-{i:02}", summary="", version="1") for i in range(paddings)],
            targets=registry.select(Target, ["H", "V", "G", "HS", "VS"]),
            readouts=registry.select(Readout, ["ridge"]),
            metrics=registry.select(Metric, ["spc", "mae", "r2"]),
            sources=[(one, one) for one in chosen],
            seeds=[0],
            taps=["all"],
            n_train=256,
            n_test=64,
            image_size=224,
            precision="fp32",
        )
    )


@dataclass
class Simulated:
    """An executor that computes nothing.

    Attributes:
        seconds: that each job would have taken.
        claimed: how often it was asked to compute each job.
    """

    metrics: Sequence[Metric]
    seconds: list[float] = field(default_factory=list)
    claimed: Counter[str] = field(default_factory=Counter)

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        for group in groups(tasks):
            for task in claim(group):
                self.claimed[task.job.id] += 1
                yield task, self._result(task)

    def _result(self, task: Task) -> JobResult:
        rng = np.random.default_rng(int(task.job.id[:15], 16))
        self.seconds.append(float(rng.lognormal(np.log(MEDIAN), np.log(SPREAD))))
        luck = rng.integers(0, FAILS)
        if luck == 0:
            outcomes = [Outcome(cell.identity(), "failed", "RuntimeError: out of luck") for cell in task.cells]
        elif luck <= FAILS // SKIPPED:
            outcomes = [Outcome(cell.identity(), "skipped", "give --image-size 442 or more") for cell in task.cells]
        else:
            outcomes = [self._outcome(cell, rng) for cell in task.cells]
        provenance = {"versions": dict.fromkeys(("torch", "timm", "numpy"), "2.15.0"), "machine": "simulated"}
        return JobResult(outcomes, [], {"extraction": self.seconds[-1]}, provenance)

    def _outcome(self, cell: Cell, rng: np.random.Generator) -> Outcome:
        scores = []
        for metric in self.metrics:
            values = rng.random(PHOTOGRAPHS[int(cell.job.train.digest[-1], 16) % 2])
            names = {f"photograph-{i}@{i:08x}": float(value) for i, value in enumerate(values)}
            mean, half = float(values.mean()), float(values.std())
            scores.append(Score(metric.name, metric.version, mean, mean - half, mean + half, names))
        drawn = rng.random((SIDE, SIDE), np.float32).astype("<f4").tobytes()
        thumbnails = [bytes([place]) * (3 * THUMBNAIL_SIDE**2) for place in range(EXAMPLES)]
        examples = [
            Example(name, thumbnail, rng.random((SIDE, SIDE), np.float32).astype("<f2").tobytes())
            for name, thumbnail in zip(names, thumbnails, strict=False)
        ]
        return Outcome(cell.identity(), "ok", "", len(names), 0.0, 1.0, drawn, scores, None, examples)


def span(seconds: Sequence[float], workers: int) -> float:
    """Seconds until the last of some workers has done its last job, each taking the next when it is free."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


@dataclass(frozen=True)
class Figures:
    """What a simulation found; times in seconds, sizes in bytes."""

    jobs: int
    planning: float
    running: float
    resuming: float
    size: int
    statuses: Counter[str]
    computed_twice: int
    left: int
    durations: list[float]


def simulate(backbones: int, paddings: int, sources: int, folder: Path) -> Figures:
    """Plan, run half, stop, find out what is left, run that, and find that nothing is left."""
    start = time.perf_counter()
    made = plan(backbones, paddings, sources)
    tasks = list(made.tasks())
    planning = time.perf_counter() - start
    executor, path = Simulated(made.metrics), folder / "store.db"
    start = time.perf_counter()
    with (
        Store(path) as store,
        closing(run(tasks, store, executor, fail_fast=False, observer=SilentListener())) as results,
    ):
        for _ in islice(results, len(tasks) // 2):
            pass
    running = time.perf_counter() - start
    start = time.perf_counter()
    with Store(path) as store:
        left = list(made.tasks(store.finished(made.metrics), store.measured()))
    resuming = time.perf_counter() - start
    start = time.perf_counter()
    with (
        Store(path) as store,
        closing(run(left, store, executor, fail_fast=False, observer=SilentListener())) as results,
    ):
        for _ in results:
            pass
    running += time.perf_counter() - start
    with Store(path) as store:
        statuses = Counter(record.outcome.status for record in store.records())
        failed = {task.job.id for task in made.tasks(store.finished(made.metrics), store.measured())}
    # A job that failed is tried again when the command is given again: those of the first half were.
    twice = sum(count > 1 for job, count in executor.claimed.items() if job not in failed)
    size = path.stat().st_size
    return Figures(len(tasks), planning, running, resuming, size, statuses, twice, len(failed), executor.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", type=int, default=1000)
    parser.add_argument("--paddings", type=int, default=12)
    parser.add_argument("--sources", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(options.backbones, options.paddings, options.sources, Path(folder))
    if found.computed_twice:
        raise PosbenchError(f"{found.computed_twice} jobs were computed twice")
    hours = sum(found.durations) / 3600
    print("| what | |\n|---|---:|")
    print(f"| jobs, cells | {found.jobs}, {found.statuses.total()} |")
    print(f"| planning | {found.planning:.1f} s, {1000 * found.planning / found.jobs:.2f} ms a job |")
    print(f"| handing out and storing | {found.running:.1f} s, {1000 * found.running / found.jobs:.2f} ms a job |")
    print(f"| finding what is left after half of it | {found.resuming:.1f} s |")
    print(f"| the store | {found.size / 1e6:.0f} MB, {found.size / found.jobs / 1e3:.1f} kB a job |")
    print(f"| cells ok, skipped, failed | {', '.join(str(found.statuses[s]) for s in ('ok', 'skipped', 'failed'))} |")
    print(f"| computed twice; jobs left, which failed | {found.computed_twice}; {found.left} |")
    print(f"| simulated work | {hours:.0f} hours |")
    for workers in (1, 16, 64):
        print(f"| … on {workers} workers | {span(found.durations, workers) / 3600:.1f} hours |")


if __name__ == "__main__":
    main()
