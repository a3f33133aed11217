"""The packaged list of timm's models against the installed timm, and taps against the modules they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import timm
import torch
from torch import nn

from posbench.builtin import timm_models
from posbench.builtin.backbones import build_timm, timm_backbone
from posbench.core.errors import Inapplicable
from posbench.plugin.components import NAME, Backbone
from posbench.plugin.registry import load_registry

PACKAGED = {row.name: row for row in timm_models.read()}


def test_the_list_holds_timms_names() -> None:
    assert sorted(PACKAGED) == sorted({*timm.list_models(), *timm.list_pretrained()})
    assert len(PACKAGED) == len(timm_models.read())


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "vgg16.tv_in1k",
        "resnet18",
        "resnet50.a1_in1k",
        "tf_efficientnet_lite0",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "inception_v3.tv_in1k",
        "test_resnet.r160_in1k",
    ],
)
def test_what_the_list_says_is_what_timm_says(name: str) -> None:
    assert PACKAGED[name] == timm_models.row(name)


def test_every_row_makes_a_backbone() -> None:
    for row in PACKAGED.values():
        record = timm_backbone(row)
        assert NAME.match(record.name)
        assert record.taps >= 0
        assert all(0 <= value <= 1 for value in (*record.mean, *record.std))


def test_the_lists_file_is_as_its_writer_would_leave_it() -> None:
    lines = timm_models.TABLE.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,hub,mean,std,taps"
    names = [line.partition(",")[0] for line in lines[1:]]
    assert names == sorted(names)


def test_numbers_for_the_pixels() -> None:
    record = load_registry().get(Backbone, "tf_efficientnet_lite0")
    assert (record.mean, record.std) == ((0.5,) * 3, (0.5,) * 3)
    record = load_registry().get(Backbone, "vgg16")
    assert (record.mean, record.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@contextmanager
def listening(model: nn.Module, names: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Record the outputs of modules while a network runs, before later modules write into them."""
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.update({name: output.clone()})
        )
        for name in names
    ]
    yield outputs
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "modules", "size"),
    [
        # After the ReLU of conv1_2, conv2_2, conv3_3, conv4_3 and conv5_3.
        ("vgg16", [f"features.{i}" for i in (3, 8, 15, 22, 29)], 32),
        ("resnet18", [f"layer{i}" for i in (1, 2, 3, 4)], 64),
        ("resnet50", [f"layer{i}" for i in (1, 2, 3, 4)], 64),
    ],
)
@torch.inference_mode()
def test_taps_are_the_papers(name: str, modules: list[str], size: int) -> None:
    model = build_timm(name).eval()
    with listening(model, modules) as outputs:
        taps = model(torch.rand(1, 3, size, size))
    assert len(taps) == len(modules) == int(PACKAGED[name].taps)
    for tap, module in zip(taps, modules, strict=True):
        assert torch.equal(tap, outputs[module])
    if name == "vgg16":
        assert [tap.shape[1] for tap in taps] == [64, 128, 256, 512, 512]
        assert [tap.shape[2] for tap in taps] == [32, 16, 8, 4, 2]
        assert all(isinstance(model.get_submodule(module), nn.ReLU) for module in modules)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_other_networks_give_their_pyramid(name: str) -> None:
    with torch.device("meta"):
        taps = build_timm(name).eval()(torch.empty(1, 3, 224, 224))
    assert len(taps) == int(PACKAGED[name].taps)
    assert all(tap.ndim == 4 for tap in taps)
    sides = [tap.shape[-1] for tap in taps]
    assert sides == sorted(sides, reverse=True)


def test_a_network_of_one_resolution_is_read_at_four_depths() -> None:
    # Twelve blocks: after the third, sixth, ninth and last.
    assert timm_models.feature_maps("vit_tiny_patch16_224") == [2, 5, 8, 11]


def test_nothing_beyond_the_last_tap_is_computed() -> None:
    with torch.device("meta"):
        model = build_timm("resnet18").eval()
        with listening(model, ["layer4", "global_pool", "fc"]) as outputs:
            model(torch.empty(1, 3, 64, 64))
    assert list(outputs) == ["layer4"]


def test_a_network_without_feature_maps_is_inapplicable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timm_models.tap_indices("plain", nn.Identity()) == []
    # Every model of this timm has some.
    monkeypatch.setattr(timm_models, "tap_indices", lambda name, model: [])
    with torch.device("meta"), pytest.raises(Inapplicable, match="feature maps of resnet18"):
        build_timm("resnet18")


def test_a_name_newer_than_the_list_is_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    older = [row for row in timm_models.read() if not row.name.startswith("resnet18")]
    monkeypatch.setattr(timm_models, "read", lambda: older)
    registry = load_registry()
    assert "resnet18" not in registry.names("backbone")
    assert registry.get(Backbone, "resnet18").taps == 4
    assert registry.get(Backbone, "resnet18.a1_in1k").checkpoints[0].label == "imagenet:timm/resnet18.a1_in1k"


def test_a_tag_chooses_the_weights() -> None:
    registry = load_registry()
    bare, tagged = (registry.get(Backbone, name) for name in ("vgg16", "vgg16.tv_in1k"))
    assert bare.checkpoints[0].label == tagged.checkpoints[0].label == "imagenet:timm/vgg16.tv_in1k"
    assert bare.taps == tagged.taps == 5
