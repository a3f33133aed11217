"""How often a network that encodes nothing is said to encode position, and how often intervals cover the truth.

    python benchmarks/null_jobs.py [--jobs 2000] [--photographs 8,15,60]

Each job is a readout fitted to the five targets on smooth noise and tested on other smooth noise, one test image a
photograph. Its expected correlation is 0, so a 95 % interval must hold 0 in 95 of 100 jobs, and the verdict must not
be `encodes position`. Then the same cross-fitted, as few photographs are: 64 training and 64 test crops, of whose
variance the crops of one photograph have a share in common. Prints a Markdown table; seeded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

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
#: Training crops, and test crops, of cross-fitted jobs, and the shares that crops of a photograph have in common.
CROPS, SHARES = 64, (0.0, 0.5, 0.9)
REGISTRY = load_registry()
TARGETS = {name: pattern(REGISTRY.get(Target, name)) for name in ("H", "V", "G", "HS", "VS")}
SPC = REGISTRY.get(Metric, "spc")
#: What a verdict tells networks apart by; here it is all of one.
SETTINGS = (
    *("backbone", "weights", "padding", "readout", "taps"),
    *("seed", "image_size", "precision", "score_at", "n_train"),
)


@dataclass(frozen=True)
class Outcome:
    """What simulated jobs came to, as shares of them.

    Attributes:
        coverage: of all intervals. plain: what it would be if cross-fitted photographs counted as independent.
    """

    photographs: int
    verdicts: dict[str, float]
    coverage: float
    plain: float


def simulate(jobs: int, photographs: int) -> Outcome:
    """Many null jobs of so many test photographs."""
    generator = torch.Generator().manual_seed(photographs)
    targets = torch.stack([resize(drawn, GRID - 2) for drawn in TARGETS.values()])
    found = {ENCODES: 0, DOES_NOT: 0, UNDECIDED: 0}
    covered = 0
    for _ in range(jobs):
        train, test = (_noise(n, generator) for n in (TRAINING, photographs))
        drawn = fit_ridge(train, targets, kernel=3, penalty=1.0).predict(test)
        names = [str(number) for number in range(photographs)]
        rows = [_row(name, drawn[:, i], targets[i], names) for i, name in enumerate(TARGETS)]
        found[decide(rows).text] += 1
        covered += sum(row["spc_lo"] <= 0 <= row["spc_hi"] for row in rows)
    coverage = covered / jobs / len(TARGETS)
    return Outcome(photographs, {text: n / jobs for text, n in found.items()}, coverage, coverage)


def crossed(jobs: int, photographs: int, share: float) -> Outcome:
    """Many null jobs whose two readouts each draw for the photographs that the other was fitted on."""
    generator = torch.Generator().manual_seed(photographs)
    targets = torch.stack([resize(drawn, GRID - 2) for drawn in TARGETS.values()])
    found = {ENCODES: 0, DOES_NOT: 0, UNDECIDED: 0}
    covered = plain = 0
    of_crop = torch.arange(CROPS) % photographs
    fold = of_crop * 2 // photographs
    names = [str(number) for number in of_crop.tolist()]
    for _ in range(jobs):
        common = _noise(photographs, generator).taps[0][of_crop] * share**0.5
        train, test = (common + _noise(CROPS, generator).taps[0] * (1 - share) ** 0.5 for _ in range(2))
        drawn = torch.empty(CROPS, len(targets), GRID - 2, GRID - 2)
        for own in range(2):
            fitted = fit_ridge(Features((train[fold != own],), GRID), targets, kernel=3, penalty=1.0)
            drawn[fold == own] = fitted.predict(Features((test[fold == own],), GRID))
        rows = [_row(name, drawn[:, i], targets[i], names, mutual=True) for i, name in enumerate(TARGETS)]
        found[decide(rows).text] += 1
        covered += sum(row["spc_lo"] <= 0 <= row["spc_hi"] for row in rows)
        plain += sum(
            abs(row["spc"]) <= (row["spc_hi"] - row["spc_lo"]) / 2 / CROSS_FITTING_VARIANCE**0.5 for row in rows
        )
    shares = {text: n / jobs for text, n in found.items()}
    return Outcome(photographs, shares, covered / jobs / len(TARGETS), plain / jobs / len(TARGETS))


def _noise(images: int, generator: torch.Generator) -> Features:
    return Features((torch.randn(images, NOISE, NOISE, CHANNELS, generator=generator),), GRID)


def _row(
    name: str, drawn: torch.Tensor, target: torch.Tensor, photographs: Sequence[str], *, mutual: bool = False
) -> dict[str, Any]:
    maps, _ = flatten_degenerate(drawn, target)
    found = summarised(values(SPC, maps, target), photographs, mutual=mutual)
    return dict.fromkeys(SETTINGS, "") | {
        "target": name,
        "images": "leaves",
        "test_images": "leaves",
        "status": "ok",
        "cell_id": name,
        "control": None,
        "control_of": None,
        "n_test_photos": len(set(photographs)),
        "spc": found.value,
        "spc_lo": found.lo,
        "spc_hi": found.hi,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--photographs", default="8,15,60")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the problems are too small to share
    headings = ("photographs", "null jobs", f"`{ENCODES}`", f"`{DOES_NOT}`", f"`{UNDECIDED}`")
    print("| " + " | ".join([*headings, "95 % intervals that cover", "plain ones"]) + " |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for photographs in map(int, arguments.photographs.split(",")):
        _print(str(photographs), arguments.jobs, simulate(arguments.jobs, photographs))
    for photographs in (8, 15):
        for share in SHARES:
            label = f"{photographs}, cross-fitted, {100 * share:.0f} % in common"
            _print(label, arguments.jobs, crossed(arguments.jobs, photographs, share))


def _print(label: str, jobs: int, one: Outcome) -> None:
    shares = " | ".join(f"{100 * one.verdicts[text]:.2f} %" for text in (ENCODES, DOES_NOT, UNDECIDED))
    print(f"| {label} | {jobs} | {shares} | {100 * one.coverage:.1f} % | {100 * one.plain:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
