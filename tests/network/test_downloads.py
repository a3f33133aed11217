"""Checkpoints on the model hub: its cache, downloads and their failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from posbench.network.build import build
from posbench.network.weights import Request, Weights, resolve
from posbench.plugin.components import Backbone
from posbench.plugin.registry import load_registry
from tests.network.conftest import COMMIT, REPOSITORY, SMALL, Hub
from tests.network.test_weights import sha

pytestmark = pytest.mark.usefixtures("fresh_hub_state")


@pytest.fixture(scope="module")
def published() -> bytes:
    """Return a checkpoint of timm's smallest ResNet, as on the hub."""
    import timm
    from safetensors.torch import save

    torch.manual_seed(1)
    return save({name: value.contiguous() for name, value in timm.create_model("test_resnet").state_dict().items()})


def test_a_checkpoint_in_the_hubs_cache_is_found_and_loaded(
    published: bytes, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(published)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    # The client reads its environment once, when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    record = load_registry().get(Backbone, SMALL)
    [own], problem = resolve(record, Request("pretrained"), [0], download=True)
    assert (own, problem) == (Weights(f"imagenet:{REPOSITORY}", sha(published)), None)
    network = build(record, own).state_dict()
    torch.manual_seed(1)
    original = record.build().state_dict()
    assert all(torch.equal(network[name], value) for name, value in original.items())
    untrained = build(record, Weights("random:0", seed=0)).state_dict()
    assert not torch.equal(untrained["conv1.0.weight"], original["conv1.0.weight"])


def fetched(hub: Hub, home: Path) -> dict[str, Any]:
    """Resolve weights in a fresh process with the real hub client; return label, digest and problem."""
    code = """
import json, sys
from posbench.plugin.components import Backbone
from posbench.plugin.registry import load_registry
from posbench.network.weights import Request, resolve
[found], problem = resolve(load_registry().get(Backbone, sys.argv[1]), Request(), [0], download=True)
print(json.dumps([found.label, found.digest, problem]))
"""
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, SMALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(("label", "digest", "problem"), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_checkpoint_is_downloaded_under_either_name(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.files[f"/{REPOSITORY}/resolve/main/{name}"] = b"tensors"
    expected = {"label": f"imagenet:{REPOSITORY}", "digest": sha(b"tensors"), "problem": None}
    assert fetched(hub, tmp_path) == expected
    del hub.files[f"/{REPOSITORY}/resolve/main/{name}"]
    hub.asked.clear()
    assert fetched(hub, tmp_path) == expected
    assert hub.asked == []


def test_a_hub_without_the_file_leaves_untrained_weights_and_the_reason(hub: Hub, tmp_path: Path) -> None:
    answer = fetched(hub, tmp_path)
    assert answer["label"] == "random:0"
    assert answer["problem"].startswith(f"imagenet:{REPOSITORY}: ")


@pytest.mark.parametrize(
    ("room", "home", "why"), [(1000, "home", "File too large"), (2**40, "file/home", "Not a directory")]
)
def test_a_cache_that_has_no_room_or_no_place(room: int, home: str, why: str, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    hub.files[f"/{REPOSITORY}/resolve/main/model.safetensors"] = b"tensors" * 1000
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from posbench.cli import main
main()
"""
    arguments = ("run", "--backbones", SMALL, "--images", "leaves", "--weights", "pretrained")
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / home), "HF_HUB_DISABLE_XET": "1", "PATH": ""}
    # Nor would compiled modules have any room.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(room), *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"posbench: no trained weights for backbone {SMALL!r} (imagenet:{REPOSITORY}: ")
    assert why in line
    assert not list(tmp_path.rglob("model.safetensors"))
    assert not (tmp_path / "posbench.db").exists()
