"""Draw the pictures of docs/concepts.md, in about a minute.

python -m benchmarks.pictures [--folder docs/pictures] [--train 256] [--test 64]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

import posbench
from posbench.bench.targets import pattern
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize

mpl.use("Agg")

TARGETS = ("H", "V", "G", "HS", "VS")
LINES = {
    ("tf_efficientnet_lite0", "zero"): "EfficientNet-Lite0,\nzero padding",
    ("tf_efficientnet_lite0", "circular"): "EfficientNet-Lite0,\ncircular padding",
    ("none", "none"): "no network",
}
FOLDER = Path(__file__).parents[1] / "docs" / "pictures"


def drawings(path: Path, train: int, test: int) -> None:
    """Draw the targets, and below them the mean predictions of readouts; `train` and `test` are counts of crops."""
    results = posbench.run(
        backbones=["tf_efficientnet_lite0", "none"],
        paddings=["zero", "circular"],
        targets=TARGETS,
        weights="pretrained",
        precision="fp32",
        train_count=train,
        test_count=test,
    )
    cells = {(row["backbone"], row["padding"], row["target"]): row for row in results.rows}
    figure, axes = plt.subplots(1 + len(LINES), len(TARGETS), figsize=(8.2, 6.8), layout="constrained")
    components = {target.name: target for target in load_registry().select(posbench.Target, TARGETS)}
    for column, name in enumerate(TARGETS):
        side = 26
        axes[0, column].set_title(name)
        axes[0, column].imshow(resize(pattern(components[name]), side), vmin=0, vmax=1)
        for line, (backbone, padding) in enumerate(LINES, 1):
            row = cells[backbone, padding, name]
            shown = axes[line, column].imshow(results.map(row["cell_id"]), vmin=0, vmax=1)
            axes[line, column].set_xlabel(f"SPC {row['spc']:.2f}")
    for line, label in enumerate(["target", *LINES.values()]):
        axes[line, 0].set_ylabel(label)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, shrink=0.5, label="drawn value")
    figure.savefig(path, dpi=100)


def seams(path: Path) -> None:
    """Draw a window of a larger image and a torus, each repeated as circular padding repeats it."""
    window = posbench.dead_leaves(np.random.default_rng(3), 448)[:224, :224]
    torus = posbench.dead_leaves(np.random.default_rng(0), 224)
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 4.3), layout="constrained")
    for axis, image, title in zip(axes, (window, torus), ("a window, as photographs are", "a torus"), strict=True):
        axis.imshow(np.tile(image, (2, 2, 1)))
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(path, dpi=72, pil_kwargs={"quality": 80})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--test", type=int, default=64)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    seams(options.folder / "seams.jpg")
    drawings(options.folder / "drawings.png", options.train, options.test)


if __name__ == "__main__":
    main()
