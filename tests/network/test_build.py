"""Networks as they are built: random ones prepared, trained ones loaded from what users have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from posbench import dead_leaves
from posbench.core.errors import MissingError
from posbench.network.build import build, required_tensors, smallest_size
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone, Checkpoint
from posbench.plugin.registry import load_registry

REGISTRY = load_registry()
State = dict[str, torch.Tensor]


class Small(nn.Module):
    """Two taps with batch norms, one of a residual branch that starts switched off, and a classifier beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=4, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)
        nn.init.zeros_(self.last.weight)
        nn.init.normal_(self.last.bias)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first = self.norm(self.stem(x)).relu()
        return [first, first + self.last(self.branch(first))]


def backbone(make: Callable[[], nn.Module] = Small, taps: int = 2) -> Backbone:
    return Backbone(
        name="small", summary="", version="1", build=make, taps=taps, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 1)
    )


def random(seed: int) -> Weights:
    return Weights(f"random:{seed}", seed=seed)


def trained(path: Path, checkpoint: Checkpoint | None = None) -> Weights:
    return Weights(f"file:{path.name}", "", path, checkpoint)


def as_built(record: Backbone, seed: int) -> State:
    """The tensors of the untrained network as its author starts it."""
    torch.manual_seed(seed)
    return record.build().state_dict()


@pytest.fixture(scope="module")
def leaves() -> torch.Tensor:
    """The 32 fixed images, float32 [32, 3, 224, 224] in [0, 1]."""
    images = [dead_leaves(np.random.default_rng([2, i]), 224) for i in range(32)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_switched_off_residual_branches_become_one(name: str) -> None:
    record = REGISTRY.get(Backbone, name)
    before, after = as_built(record, 0), build(record, random(0)).state_dict()
    off = {
        key
        for key, value in before.items()
        if value.ndim == 1 and key.endswith(("weight", "gamma")) and (value.abs() < 1e-5).all()
    }
    assert len(off) == {"resnet18": 8, "convnext_atto": sum((2, 2, 6, 2))}[name]
    for key, value in after.items():
        if key in off:
            assert torch.equal(value, torch.ones_like(value)), key
        elif not key.rpartition(".")[2].startswith(("running", "num_batches")):
            assert torch.equal(value, before[key]), key


def test_biases_that_start_at_zero_stay_there() -> None:
    after = build(REGISTRY.get(Backbone, "resnet18"), random(0)).state_dict()
    biases = [value for key, value in after.items() if key.endswith("bias") and not key.startswith("fc")]
    assert len(biases) == 20
    assert not any(value.any() for value in biases)


def test_batch_norms_hold_the_statistics_of_32_leaves(leaves: torch.Tensor) -> None:
    built = build(backbone(), random(3))
    state = {key: value.double() for key, value in as_built(backbone(), 3).items()}
    x = (leaves.double() - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 1]).view(3, 1, 1)

    def normalised(maps: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    first = nn.functional.conv2d(x, state["stem.weight"], stride=4, padding=1)
    second = nn.functional.conv2d(
        normalised(first, state["norm.weight"], state["norm.bias"]).relu(),
        state["branch.weight"],
        state["branch.bias"],
        padding=1,
    )
    for norm, maps in ((built.norm, first), (built.last, second)):
        assert isinstance(norm, nn.BatchNorm2d)
        torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)).float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)).float(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_batch_norm_of_a_residual_network_is_calibrated(leaves: torch.Tensor) -> None:
    record = REGISTRY.get(Backbone, "resnet18")
    built = build(record, random(0))
    gaps: list[float] = []

    def compare(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        spread = inputs[0].std((0, 2, 3))
        gaps.append(float(((inputs[0].mean((0, 2, 3)) - norm.running_mean) / spread).abs().max()))
        gaps.append(float((spread / norm.running_var.sqrt() - 1).abs().max()))

    norms = [module for module in built.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(compare)
    built((leaves - torch.tensor(record.mean).view(3, 1, 1)) / torch.tensor(record.std).view(3, 1, 1))
    assert len(gaps) == 2 * len(norms) == 40
    assert max(gaps) < 1e-2


def test_a_built_network_is_frozen_in_evaluation_mode() -> None:
    built = build(backbone(), random(0))
    assert not any(module.training for module in built.modules())
    assert not any(parameter.requires_grad for parameter in built.parameters())


def test_a_seed_is_a_network() -> None:
    one, again, other = (build(backbone(), random(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    for key in ("stem.weight", "branch.weight", "norm.running_mean", "last.running_var"):
        assert not torch.allclose(one[key], other[key])


def test_the_global_random_state_is_left_as_it_was(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(99)
    torch.rand(3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002  the global one is meant
    build(backbone(), random(0))
    build(backbone(), trained(tmp_path / "weights.pt"))
    smallest_size(backbone(), 8)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # type: ignore[index]  # noqa: NPY002


@pytest.fixture
def source() -> Small:
    """A network as training left it."""
    torch.manual_seed(7)
    network = Small().eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    return network


def _plain(state: State, path: Path) -> None:
    torch.save(state, path)


def _safetensors(state: State, path: Path) -> None:
    save_file(state, path)


def _wrapped(state: State, path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": state}, path)


def _in_model(state: State, path: Path) -> None:
    torch.save({"model": state, "args": ["a", 1]}, path)


def _parallel(state: State, path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)


FORMS = [
    (_plain, "weights.pth"),
    (_safetensors, "weights.safetensors"),
    (_wrapped, "weights.pt"),
    (_in_model, "weights.bin"),
    (_parallel, "weights.tar"),
]


@pytest.mark.parametrize(("save", "name"), FORMS)
@torch.no_grad()
def test_a_checkpoint_gives_the_network_that_was_saved(
    save: Callable[[State, Path], None], name: str, source: Small, tmp_path: Path
) -> None:
    save(source.state_dict(), tmp_path / name)
    built, x = build(backbone(), trained(tmp_path / name)), torch.randn(2, 3, 32, 32)
    for ours, theirs in zip(built(x), source(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    state = built.state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())


def test_parallel_training_in_safetensors_is_read_too(source: Small, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": value for name, value in source.state_dict().items()}, path)
    assert torch.equal(build(backbone(), trained(path)).state_dict()["stem.weight"], source.stem.weight)


def test_a_plugin_reads_its_own_format(source: Small, tmp_path: Path) -> None:
    path = tmp_path / "weights.odd"
    path.write_bytes(b"anything")

    def read(given: Path) -> Mapping[str, torch.Tensor]:
        assert given == path
        return source.state_dict()

    built = build(backbone(), trained(path, Checkpoint(label="odd", find=lambda: path, read=read)))
    assert torch.equal(built.state_dict()["stem.weight"], source.stem.weight)


def test_what_the_taps_depend_on() -> None:
    tensors = set(Small().state_dict())
    beside = {"head.weight", "head.bias", "norm.num_batches_tracked", "last.num_batches_tracked"}
    assert required_tensors(Small().eval()) == tensors - beside


@pytest.mark.parametrize("spoil", ["absent", "of another shape"])
def test_a_classifier_may_be(spoil: str, source: Small, tmp_path: Path) -> None:
    state = source.state_dict()
    for name in ("head.weight", "head.bias", "norm.num_batches_tracked"):
        if spoil == "absent":
            del state[name]
        else:
            state[name] = torch.zeros(5)
    torch.save(state, tmp_path / "weights.pt")
    built = build(backbone(), trained(tmp_path / "weights.pt"))
    assert torch.equal(built.state_dict()["branch.weight"], source.branch.weight)


@pytest.mark.parametrize("name", ["stem.weight", "branch.bias", "last.weight", "norm.running_mean", "last.running_var"])
@pytest.mark.parametrize("spoil", ["absent", "of another shape"])
def test_a_tensor_that_the_taps_need_is_named(name: str, spoil: str, source: Small, tmp_path: Path) -> None:
    state = source.state_dict()
    if spoil == "absent":
        del state[name]
    else:
        state[name] = state[name][:-1]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(MissingError, match=rf"file:weights\.pt .*'small'.*{name}$") as error:
        build(backbone(), trained(tmp_path / "weights.pt"))
    assert error.value.exit_code == 4


@torch.no_grad()
def test_the_smallest_size_of_vgg16_is_what_its_four_poolings_leave() -> None:
    vgg = REGISTRY.get(Backbone, "vgg16")
    assert smallest_size(vgg, 16) == 16
    assert smallest_size(vgg, 100) == 100
    # 15 pixels are halved to 7, 3, 1 and none; the next multiple of 32 will do.
    assert smallest_size(vgg, 15) == 32
    network = vgg.build().eval()
    assert network(torch.zeros(1, 3, 16, 16))[-1].shape[2:] == (1, 1)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        network(torch.zeros(1, 3, 15, 15))


class NeedsRoom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 100)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.one(x)]


class Never(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("out of order")


def test_the_smallest_size_steps_by_32() -> None:
    assert smallest_size(backbone(NeedsRoom, 1), 99) == 128
    assert smallest_size(backbone(NeedsRoom, 1), 100) == 100
    assert smallest_size(backbone(Never, 1), 64) is None


def test_statistics_of_a_normalisation_without_parameters_are_needed() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4, affine=False)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.norm(self.conv(x))]

    assert required_tensors(Bare().eval()) == {"conv.weight", "conv.bias", "norm.running_mean", "norm.running_var"}


@pytest.mark.parametrize(
    ("name", "head", "suffix"), [("vgg16", "classifier", ".pth"), ("resnet18", "fc", ".safetensors")]
)
def test_torchvisions_files_fit_with_and_without_their_classifier(
    name: str, head: str, suffix: str, tmp_path: Path
) -> None:
    import torchvision
    from safetensors.torch import save_file

    # Small random tensors of the right names and shapes, without the minutes that initialising VGG's classifier takes.
    with torch.device("meta"):
        published = getattr(torchvision.models, name)(weights=None).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.zeros((), dtype=int)
        for key, value in published.items()
        if not key.startswith("classifier.")  # a classifier may be absent; VGG's alone is half a gigabyte
    }
    backbone = load_registry().get(Backbone, name)
    for kept in (state, {key: value for key, value in state.items() if not key.startswith(head)}):
        file = tmp_path / f"file{suffix}"
        save_file(kept, file) if suffix == ".safetensors" else torch.save(kept, file)
        network = build(backbone, Weights(f"file:{file.name}", "", file))
        own = network.state_dict()
        shared = [key for key in kept if key in own and own[key].is_floating_point()]
        assert len(shared) >= 26
        assert all(torch.equal(own[key], kept[key]) for key in shared)
    first = next(key for key in state if key.endswith("weight"))
    torch.save({key: value for key, value in state.items() if key != first}, tmp_path / "file.pth")
    with pytest.raises(MissingError, match=f"they lack {re.escape(first)}"):
        build(backbone, Weights("file:file.pth", "", tmp_path / "file.pth"))
