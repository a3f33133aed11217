"""The list of timm's models, which makes them known without importing timm.

`python -m posbench.builtin.timm_models` writes `timm_models.csv` from the installed timm.
"""

from __future__ import annotations

import csv
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_name("timm_models.csv")


class Row(NamedTuple):
    """A timm model, bare or with the tag of its weights.

    Attributes:
        name: the argument of timm's `create_model`.
        hub: the repository of its weights on the model hub, or empty.
        mean, std: of the expected pixels, three numbers in [0, 1] separated by spaces.
        taps: the number of feature maps that posbench uses; 0 if timm cannot return any.
    """

    name: str
    hub: str
    mean: str
    std: str
    taps: str


def row(name: str) -> Row:
    """Return the row of one model from the installed timm. Imports timm."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    mean, std = (" ".join(format(x, ".9g") for x in values) for values in (config.mean, config.std))
    # Weights that are not on the hub have another address, from which posbench does not download.
    return Row(name, config.hf_hub_id or "", mean, std, str(len(feature_maps(name.partition(".")[0]))))


@cache
def feature_maps(name: str) -> list[int]:
    """Return the indices of a timm model's taps among its intermediate feature maps; empty if timm cannot return any.

    VGG: the five blocks before pooling, as the paper takes them (after the ReLU of conv1_2, conv2_2 and so on to the
    last block's last convolution). ResNets: layer1 to layer4. Others: all feature maps, or, if there are
    more than six (a network of many blocks at one resolution), four at equal distances, including the last.
    """
    import timm
    import torch

    with torch.device("meta"):  # no memory for weights
        return tap_indices(name, timm.create_model(name))


def tap_indices(name: str, model: Any) -> list[int]:
    """Return the same for a model that is already built."""
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        return []
    modules = [info["module"] for info in model.feature_info]
    layers = [i for i, module in enumerate(modules) if module.startswith("layer")]
    if name.startswith("vgg"):
        return list(range(5))
    if "act1" in modules and len(layers) == 4:
        return layers
    if len(modules) > 6:
        return [round(len(modules) * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    return list(range(len(modules)))


def read() -> list[Row]:
    """Return the packaged list."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [Row(*fields) for fields in list(csv.reader(file))[1:]]


def main() -> None:
    """Write the packaged list: every model of the installed timm, and every tag of each."""
    import timm

    rows = [row(name) for name in sorted({*timm.list_models(), *timm.list_pretrained()})]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows])
    sys.stdout.write(f"wrote {TABLE.name}\n")


if __name__ == "__main__":
    main()
