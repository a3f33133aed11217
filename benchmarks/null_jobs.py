"""How often a network that encodes nothing is said to encode position, and how often intervals cover the truth.

    python benchmarks/null_jobs.py [--jobs 2000] [--photographs 8,15,60]

Each job is a readout fitted to the five targets on smooth noise and tested on other smooth noise, one test image a
photograph. Its expected correlation is 0, so a 95 % interval must hold 0 in 95 of 100 jobs, and the verdict must not
be `encodes position`. Prints a Markdown table; seeded.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from posbench.components import Metric, Target
from posbench.features import Features
from posbench.maps import pattern, resize
from posbench.readout import fit_ridge
from posbench.registry import load_registry
from posbench.scoring import flatten_degenerate, score
from posbench.verdict import DOES_NOT, ENCODES, UNDECIDED, decide

#: The grid, the side of the noise before it is resized to the grid, and its channels; few of each, for speed.
GRID, NOISE, CHANNELS, TRAINING = 12, 4, 8, 32
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
    """What simulated jobs came to, as shares of them; coverage is of all intervals."""

    photographs: int
    verdicts: dict[str, float]
    coverage: float


def simulate(jobs: int, photographs: int) -> Outcome:
    """Many null jobs of so many test photographs."""
    generator = torch.Generator().manual_seed(photographs)
    targets = torch.stack([resize(drawn, GRID - 2) for drawn in TARGETS.values()])
    found = {ENCODES: 0, DOES_NOT: 0, UNDECIDED: 0}
    covered = 0
    for _ in range(jobs):
        train, test = (_noise(n, generator) for n in (TRAINING, photographs))
        drawn = fit_ridge(train, targets, kernel=3, penalty=1.0).predict(test)
        rows = [_row(name, drawn[:, i], targets[i]) for i, name in enumerate(TARGETS)]
        found[decide(rows).text] += 1
        covered += sum(row["spc_lo"] <= 0 <= row["spc_hi"] for row in rows)
    return Outcome(photographs, {text: n / jobs for text, n in found.items()}, covered / jobs / len(TARGETS))


def _noise(images: int, generator: torch.Generator) -> Features:
    return Features((torch.randn(images, NOISE, NOISE, CHANNELS, generator=generator),), GRID)


def _row(name: str, drawn: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
    maps, _ = flatten_degenerate(drawn, target)
    found = score(SPC, maps, target, [str(number) for number in range(len(maps))])
    return dict.fromkeys(SETTINGS, "") | {
        "target": name,
        "images": "leaves",
        "test_images": "leaves",
        "status": "ok",
        "cell_id": name,
        "control": None,
        "control_of": None,
        "n_test_photos": len(maps),
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
    print(f"| photographs | null jobs | `{ENCODES}` | `{DOES_NOT}` | `{UNDECIDED}` | 95 % intervals that cover |")
    print("|---:|---:|---:|---:|---:|---:|")
    for photographs in map(int, arguments.photographs.split(",")):
        one = simulate(arguments.jobs, photographs)
        shares = " | ".join(f"{100 * one.verdicts[text]:.2f} %" for text in (ENCODES, DOES_NOT, UNDECIDED))
        print(f"| {photographs} | {arguments.jobs} | {shares} | {100 * one.coverage:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
