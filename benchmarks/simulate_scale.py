"""Measure posbench's own cost at scale: planning, distributing, storing and resuming thousands of jobs.

    python -m benchmarks.simulate_scale [--backbones 1000] [--paddings 12] [--sources 2]

The plan, the loop over jobs, the locks and the store are the real ones. Only the networks are simulated: an executor
returns results of realistic size without computing anything. One job in a hundred fails, one in fifty is skipped. The
run is stopped half-way and started again. Durations are drawn at random, not waited for; from them follows how long a
number of workers would take. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from torch import nn

from posbench.bench.engine import JobResult
from posbench.bench.plan import Cell, Plan, PlanInputs, Source, Task, make_plan
from posbench.bench.records import Example, Outcome, Score
from posbench.bench.scoring import EXAMPLES, THUMBNAIL_SIDE
from posbench.core.errors import PosbenchError
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.plugin.execution import Claim, Observer, TaskIds, groups
from posbench.plugin.registry import load_registry
from posbench.runner.jobs import JobRunner
from posbench.store.store import Store

#: Test photographs of a cell, by source: those of `photos` and of `leaves`.
PHOTOGRAPHS = (15, 64)
#: The side of the map stored with each cell.
SIDE = 26
#: Log-normal seconds of a job: the median, and the factor of one standard deviation. From the README's table.
MEDIAN, SPREAD = 5.8, 2.5
#: One job in `FAILS` fails, and one in `SKIPPED` is skipped.
FAILS, SKIPPED = 100, 50


class Network(nn.Module):
    """A network that is planned with, and never run."""

    def forward(self, x: object) -> list[object]:
        return [x]


def plan(backbones: int, paddings: int, sources: int) -> Plan:
    """Return the plan of this many networks, paddings and sources, with five targets and three metrics."""
    registry = load_registry()

    def source(number: int) -> Source:
        images = Images(name=f"source-{number}", summary="", version="1", draw=lambda rng, size: np.zeros(0, np.uint8))
        return Source(images, f"{number:064x}", PHOTOGRAPHS[number % 2])

    numbered = [source(number) for number in range(sources)]
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
            sources=[(images, images) for images in numbered],
            seeds=[0],
            taps=["all"],
            n_train=256,
            n_test=64,
            image_size=224,
            precision="fp32",
        )
    )


@dataclass
class SimulatedPool:
    """A pool that computes nothing.

    Attributes:
        tasks: by the id of their job.
        seconds: the simulated duration of each job.
        claimed: how often each job was computed, by its id.
    """

    metrics: Sequence[Metric]
    tasks: Mapping[str, Task]
    seconds: list[float] = field(default_factory=list)
    claimed: Counter[str] = field(default_factory=Counter)

    def results(self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim) -> Generator[tuple[str, JobResult]]:
        for group in groups(tasks):
            for ids in claim(group):
                self.claimed[ids.job_id] += 1
                yield ids.job_id, self._result(self.tasks[ids.job_id])

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
        mean_map = rng.random((SIDE, SIDE), np.float32).astype("<f4").tobytes()
        thumbnails = [bytes([place]) * (3 * THUMBNAIL_SIDE**2) for place in range(EXAMPLES)]
        examples = [
            Example(name, thumbnail, rng.random((SIDE, SIDE), np.float32).astype("<f2").tobytes())
            for name, thumbnail in zip(names, thumbnails, strict=False)
        ]
        return Outcome(cell.identity(), "ok", "", len(names), 0.0, 1.0, mean_map, scores, None, examples)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return the seconds until all jobs are done, if each free worker takes the next job in order."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


@dataclass(frozen=True)
class Figures:
    """Results of a simulation; times in seconds, sizes in bytes."""

    jobs: int
    planning: float
    running: float
    resuming: float
    size: int
    statuses: Counter[str]
    computed_twice: int
    remaining: int
    durations: list[float]


def simulate(backbones: int, paddings: int, sources: int, folder: Path) -> Figures:
    """Plan, run half of the jobs, stop, find the remaining jobs, run them, and count what remains."""
    start = time.perf_counter()
    simulated = plan(backbones, paddings, sources)
    tasks = list(simulated.tasks())
    planning = time.perf_counter() - start
    executor, path = SimulatedPool(simulated.metrics, {task.job.id: task for task in tasks}), folder / "store.db"
    start = time.perf_counter()
    with (
        Store(path) as store,
        closing(JobRunner(store, executor).run(tasks)) as results,
    ):
        for _ in islice(results, len(tasks) // 2):
            pass
    running = time.perf_counter() - start
    start = time.perf_counter()
    with Store(path) as store:
        remaining = list(simulated.tasks(store.finished(simulated.metrics), store.measured()))
    resuming = time.perf_counter() - start
    start = time.perf_counter()
    with (
        Store(path) as store,
        closing(JobRunner(store, executor).run(remaining)) as results,
    ):
        for _ in results:
            pass
    running += time.perf_counter() - start
    with Store(path) as store:
        statuses = Counter(record.outcome.status for record in store.records())
        failed = {task.job.id for task in simulated.tasks(store.finished(simulated.metrics), store.measured())}
    # Failed jobs are computed again by the next run; those of the first half were.
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
        figures = simulate(options.backbones, options.paddings, options.sources, Path(folder))
    if figures.computed_twice:
        raise PosbenchError(f"{figures.computed_twice} jobs were computed twice")
    hours = sum(figures.durations) / 3600
    print("| what | |\n|---|---:|")
    print(f"| jobs, cells | {figures.jobs}, {figures.statuses.total()} |")
    print(f"| planning | {figures.planning:.1f} s, {1000 * figures.planning / figures.jobs:.2f} ms a job |")
    print(
        f"| handing out and storing | {figures.running:.1f} s, {1000 * figures.running / figures.jobs:.2f} ms a job |"
    )
    print(f"| finding what is left after half of it | {figures.resuming:.1f} s |")
    print(f"| the store | {figures.size / 1e6:.0f} MB, {figures.size / figures.jobs / 1e3:.1f} kB a job |")
    print(f"| cells ok, skipped, failed | {', '.join(str(figures.statuses[s]) for s in ('ok', 'skipped', 'failed'))} |")
    print(f"| computed twice; jobs left, which failed | {figures.computed_twice}; {figures.remaining} |")
    print(f"| simulated work | {hours:.0f} hours |")
    for workers in (1, 16, 64):
        print(f"| … on {workers} workers | {makespan(figures.durations, workers) / 3600:.1f} hours |")


if __name__ == "__main__":
    main()
