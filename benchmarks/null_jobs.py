"""Simulate networks without position: how often a verdict is wrong, and how often intervals cover the true score.

    python benchmarks/null_jobs.py [--jobs 2000] [--photographs 8,15,60]

Each job fits a readout to the five targets on smooth noise and tests it on other smooth noise, one test image a
photograph. Its expected correlation is 0, so a 95 % interval must contain 0 in 95 of 100 jobs, and the verdict must not
be `encodes position`. The second part cross-fits, as posbench does with few photographs: 64 training and 64 test crops,
where the crops of one photograph share a part of their variance. Prints a Markdown table; seeded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from posbench.bench.row import FIRST, LAST, Row
from posbench.bench.scoring import flatten_degenerate, summarised, values
from posbench.bench.targets import pattern
from posbench.bench.verdict import DOES_NOT, ENCODES, UNDECIDED, decide
from posbench.builtin.readouts.ridge import fit_ridge
from posbench.core.statistics import CROSS_FITTING_VARIANCE
from posbench.plugin.components import Metric, Target
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize

#: The grid, the side of the noise before it is resized to the grid, and its channels; few of each, for speed.
GRID, NOISE, CHANNELS, TRAINING = 12, 4, 8, 32
#: Training crops, and test crops, of cross-fitted jobs, and the shares of variance that crops of a photograph share.
CROPS, SHARES = 64, (0.0, 0.5, 0.9)
REGISTRY = load_registry()
TARGETS = {name: pattern(REGISTRY.get(Target, name)) for name in ("H", "V", "G", "HS", "VS")}
SPC = REGISTRY.get(Metric, "spc")
CONTROLS = load_registry().control_catalogue()
#: The columns of every row, since all rows are of one network.
COLUMNS: dict[str, Any] = dict.fromkeys((*FIRST, *LAST)) | {
    "padding": "zero",
    "images": "leaves",
    "test_images": "leaves",
    "n_test": 0,
    "status": "ok",
}


@dataclass(frozen=True)
class Simulation:
    """Results of simulated jobs.

    Attributes:
        photographs: test photographs of each job.
        verdicts: the share of jobs with each verdict.
        coverage: the share of intervals that contain 0.
        uncorrected_coverage: the same for intervals that treat cross-fitted photographs as independent.
    """

    photographs: int
    verdicts: dict[str, float]
    coverage: float
    uncorrected_coverage: float


def simulate(jobs: int, photographs: int) -> Simulation:
    """Simulate jobs with one training set and `photographs` test photographs each."""
    generator = torch.Generator().manual_seed(photographs)
    targets = torch.stack([resize(target, GRID - 2) for target in TARGETS.values()])
    verdicts = {ENCODES: 0, DOES_NOT: 0, UNDECIDED: 0}
    covered = 0
    for _ in range(jobs):
        train, test = (_noise(n, generator) for n in (TRAINING, photographs))
        predictions = fit_ridge(train, targets, kernel=3, penalty=1.0).predict(test)
        names = [str(number) for number in range(photographs)]
        rows = [_row(name, predictions[:, i], targets[i], names) for i, name in enumerate(TARGETS)]
        verdicts[decide(rows).text] += 1
        covered += sum(row["spc_lo"] <= 0 <= row["spc_hi"] for row in rows)
    coverage = covered / jobs / len(TARGETS)
    return Simulation(photographs, {text: n / jobs for text, n in verdicts.items()}, coverage, coverage)


def simulate_cross_fitted(jobs: int, photographs: int, share: float) -> Simulation:
    """Simulate jobs with two readouts, each tested on the photographs that the other was fitted on.

    Args:
        jobs: how many.
        photographs: from which the crops of each job are.
        share: of a crop's variance, the part that all crops of its photograph have in common.
    """
    generator = torch.Generator().manual_seed(photographs)
    targets = torch.stack([resize(target, GRID - 2) for target in TARGETS.values()])
    verdicts = {ENCODES: 0, DOES_NOT: 0, UNDECIDED: 0}
    covered = covered_uncorrected = 0
    photograph = torch.arange(CROPS) % photographs
    fold = photograph * 2 // photographs
    names = [str(number) for number in photograph.tolist()]
    for _ in range(jobs):
        common = _noise(photographs, generator).taps[0][photograph] * share**0.5
        train, test = (common + _noise(CROPS, generator).taps[0] * (1 - share) ** 0.5 for _ in range(2))
        predictions = torch.empty(CROPS, len(targets), GRID - 2, GRID - 2)
        for held_out in range(2):
            readout = fit_ridge(Features((train[fold != held_out],), GRID), targets, kernel=3, penalty=1.0)
            predictions[fold == held_out] = readout.predict(Features((test[fold == held_out],), GRID))
        rows = [_row(name, predictions[:, i], targets[i], names, mutual=True) for i, name in enumerate(TARGETS)]
        verdicts[decide(rows).text] += 1
        covered += sum(row["spc_lo"] <= 0 <= row["spc_hi"] for row in rows)
        covered_uncorrected += sum(
            abs(row["spc"]) <= (row["spc_hi"] - row["spc_lo"]) / 2 / CROSS_FITTING_VARIANCE**0.5 for row in rows
        )
    shares = {text: n / jobs for text, n in verdicts.items()}
    return Simulation(photographs, shares, covered / jobs / len(TARGETS), covered_uncorrected / jobs / len(TARGETS))


def _noise(images: int, generator: torch.Generator) -> Features:
    return Features((torch.randn(images, NOISE, NOISE, CHANNELS, generator=generator),), GRID)


def _row(
    name: str, predictions: torch.Tensor, target: torch.Tensor, photographs: Sequence[str], *, mutual: bool = False
) -> Row:
    maps, _ = flatten_degenerate(predictions, target)
    score = summarised(SPC, values(SPC, maps, target), photographs, mutual=mutual)
    columns = {
        "target": name,
        "cell_id": name,
        "n_test_photos": len(set(photographs)),
        "spc": score.value,
        "spc_lo": score.lo,
        "spc_hi": score.hi,
    }
    return Row.from_columns(COLUMNS | columns, CONTROLS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--photographs", default="8,15,60")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the problems are too small for several threads
    headings = ("photographs", "null jobs", f"`{ENCODES}`", f"`{DOES_NOT}`", f"`{UNDECIDED}`")
    print("| " + " | ".join([*headings, "95 % intervals that cover", "plain ones"]) + " |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for photographs in map(int, arguments.photographs.split(",")):
        _print(str(photographs), arguments.jobs, simulate(arguments.jobs, photographs))
    for photographs in (8, 15):
        for share in SHARES:
            label = f"{photographs}, cross-fitted, {100 * share:.0f} % in common"
            _print(label, arguments.jobs, simulate_cross_fitted(arguments.jobs, photographs, share))


def _print(label: str, jobs: int, result: Simulation) -> None:
    shares = " | ".join(f"{100 * result.verdicts[text]:.2f} %" for text in (ENCODES, DOES_NOT, UNDECIDED))
    print(
        f"| {label} | {jobs} | {shares} | {100 * result.coverage:.1f} % | {100 * result.uncorrected_coverage:.1f} % |",
        flush=True,
    )


if __name__ == "__main__":
    main()
