"""Writes `timm_models.csv`, the list that lets posbench know timm's models without importing it.

python -m posbench.builtin.timm_models
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
        name: what timm's `create_model` takes.
        hub: the repository of its weights on the model hub, or empty.
        mean, std: of the pixels that it expects, three numbers in [0, 1] separated by blanks.
        taps: how many feature maps posbench takes from it; 0 if timm cannot return any.
    """

    name: str
    hub: str
    mean: str
    std: str
    taps: str


def rows() -> list[Row]:
    """Every model of the installed timm, and every tag of each. Imports timm."""
    import timm

    tagged = timm.list_pretrained()
    return [row(name) for name in sorted({*timm.list_models(), *tagged})]


def row(name: str) -> Row:
    """What timm knows of one model. Imports timm."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    mean, std = (" ".join(format(x, ".9g") for x in values) for values in (config.mean, config.std))
    # Some weights are not on the hub; timm then names an address instead, which posbench does not fetch from.
    return Row(name, config.hf_hub_id or "", mean, std, str(len(feature_maps(name.partition(".")[0]))))


@cache
def feature_maps(name: str) -> list[int]:
    """The indices of a timm model's taps among its intermediate feature maps; empty if timm cannot return any.

    VGG: the five blocks before pooling, as the paper takes them (after the ReLU of conv1_2, conv2_2 and so on to the
    last block's last convolution). ResNets: layer1 to layer4. Others: the whole pyramid, or, of a network that keeps
    one resolution through many blocks, four of them at equal distances, the last one included.
    """
    import timm
    import torch

    with torch.device("meta"):  # the layers are counted, not filled
        return tap_indices(name, timm.create_model(name))


def tap_indices(name: str, model: Any) -> list[int]:
    """As `feature_maps`, for a model at hand."""
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
    """The packaged list."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [Row(*fields) for fields in list(csv.reader(file))[1:]]


def main() -> None:
    """Write the packaged list from the installed timm."""
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows()])
    sys.stdout.write(f"wrote {TABLE.name}\n")


if __name__ == "__main__":
    main()
