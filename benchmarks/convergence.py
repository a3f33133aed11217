"""Measure the early stopping of `ridge`: its steps, and its distance from the converged readout.

    python -m benchmarks.convergence [--backbones A,B] [--train 128] [--test 64] [--tolerances 1e-3,5e-4,2e-4]
        [--precision fp32]

Fits `ridge` on half of the packaged photographs, as a cross-fitted job does, and scores it on the others: once for each
tolerance of the solver, and once to 10⁻⁷. Prints a Markdown table: conjugate-gradient steps, and the greatest change of
any target's SPC and R² from the converged fit.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.price import REGISTRY, Bench, machine_description
from posbench.bench.targets import pattern
from posbench.builtin.metrics.scores import r2, spc
from posbench.builtin.readouts import ridge
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.plugin.components import Padding
from posbench.plugin.features import Features
from posbench.plugin.resampling import resize

CONVERGED = 1e-7


def fit_and_score(train: Features, test: Features, targets: torch.Tensor, tolerance: float) -> tuple[int, torch.Tensor]:
    """Fit a readout; return its steps and its mean scores on the test images, [metrics, targets]."""
    default, ridge.TOLERANCE = ridge.TOLERANCE, tolerance
    try:
        readout = ridge.fit_ridge(train, targets, kernel=3, penalty=1.0)
    finally:
        ridge.TOLERANCE = default
    predictions = readout.predict(test).double()
    scores = [
        [metric(predictions[:, i], target.double()).mean() for i, target in enumerate(targets)] for metric in (spc, r2)
    ]
    return readout.steps, torch.tensor(scores)


def table_rows(backbone: str, train: int, test: int, precision: str, tolerances: list[float]) -> list[str]:
    """Return the rows of one network."""
    bench = Bench(backbone, train, test, precision)
    forward = ForwardPass(bench.network, bench.backbone, REGISTRY.get(Padding, "zero"), bench.precision, bench.device)
    train_features, test_features = (extract(forward, crops, grid=28) for crops in bench.crops)
    targets = torch.stack([resize(pattern(target), 26) for target in bench.targets]).to(bench.device)
    # The converged fit multiplies in float32, so that the table includes the effect of bfloat16.
    exact = Features(tuple(tap.float() for tap in train_features.taps), train_features.grid)
    steps, converged = fit_and_score(exact, test_features, targets, CONVERGED)
    label = f"{backbone}, {bench.precision}"
    rows = [f"| {label} | {CONVERGED:.0e} | {steps} | | |"]
    for tolerance in tolerances:
        steps, scores = fit_and_score(train_features, test_features, targets, tolerance)
        spc_shift, r2_shift = (scores - converged).abs().amax(dim=1).tolist()
        rows.append(f"| {label} | {tolerance:.0e} | {steps} | {spc_shift:.4f} | {r2_shift:.4f} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,resnet50,vgg16")
    parser.add_argument("--train", type=int, default=128)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--tolerances", default="1e-3,5e-4,2e-4")
    options = parser.parse_args()
    print(f"{machine_description()}; {options.train} training and {options.test} test images of 224 px\n")
    print("| network | tolerance | steps | SPC | R² |\n|---|---:|---:|---:|---:|")
    for backbone in options.backbones.split(","):
        tolerances = [float(text) for text in options.tolerances.split(",")]
        rows = table_rows(backbone, options.train, options.test, options.precision, tolerances)
        print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
