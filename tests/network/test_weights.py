"""The sources of a backbone's weights, their order, and the messages for missing ones."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from posbench.core.errors import MissingError, UsageError
from posbench.network import weights
from posbench.network.build import build
from posbench.network.weights import NONE, Request, Weights, hub_answers, resolve
from posbench.plugin.components import Backbone, Checkpoint
from posbench.plugin.registry import load_registry
from tests.factories import CONTROL, backbone

SMALL = "test_resnet.r160_in1k"
REPOSITORY = "timm/test_resnet.r160_in1k"
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clear the cached state of the hub, and disable proxies, for each test."""
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    hub_answers.cache_clear()
    yield
    hub_answers.cache_clear()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Hub:
    """A local server that responds like a model hub."""

    def __init__(self) -> None:
        self.status = 200
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                body = b"hub" if self.path == "/" else hub.files.get(self.path)
                self.send_response(hub.status if body is not None else 404)
                if body is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if with_body:
                    self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    serving = Hub()
    thread = threading.Thread(target=serving.server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", serving.address)
    yield serving
    serving.server.shutdown()
    thread.join()
    serving.server.server_close()


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """Write a checkpoint file such as an installed package has."""
    path = tmp_path / "carried.pth"
    path.write_bytes(b"carried")
    return path


def absent(label: str, fetch: Callable[[], Path] | None = None) -> Checkpoint:
    return Checkpoint(label=label, find=lambda: None, fetch=fetch)


def sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_what_the_user_names_comes_first(carried: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"mine")
    net = backbone(checkpoints=(Checkpoint(label="package", find=lambda: carried),))
    chosen, problem = resolve(net, Request.parse(["auto", f"net={mine}"]), [0, 1], download=True)
    assert problem is None
    assert chosen == [Weights(f"file:mine.pt@{sha(b'mine')[:8]}", sha(b"mine"))]
    assert chosen[0].path == mine
    assert chosen[0].seed is None


@pytest.mark.parametrize("mode", ["auto", "pretrained"])
def test_then_what_is_on_this_machine_though_the_hub_is_preferred(mode: str, carried: Path) -> None:
    package = Checkpoint(label="package", find=lambda: carried)
    net = backbone(checkpoints=(absent("hub", fetch=lambda: pytest.fail("fetched")), package))
    chosen, problem = resolve(net, Request(mode), [0, 1], download=True)
    assert (chosen, problem) == ([Weights("package", sha(b"carried"))], None)
    assert chosen[0].checkpoint is package


def test_then_what_the_hub_has(hub: Hub, carried: Path) -> None:
    net = backbone(checkpoints=(absent("lost"), absent("hub", fetch=lambda: carried)))
    assert resolve(net, Request(), [0], download=True) == ([Weights("hub", sha(b"carried"))], None)
    assert hub.asked == ["HEAD /"]


def test_a_dry_run_only_names_what_it_would_download(hub: Hub) -> None:
    net = backbone(checkpoints=(absent("hub", fetch=lambda: pytest.fail("fetched")),))
    [named], problem = resolve(net, Request(), [0], download=False)
    assert (named, problem) == (Weights("hub"), None)
    assert named.seed is None


def test_and_last_seeded_random_weights(offline: None) -> None:
    net = backbone(checkpoints=(absent("hub", fetch=lambda: pytest.fail("fetched")),))
    chosen, problem = resolve(net, Request(), [3, 5], download=True)
    assert chosen == [Weights("random:3", seed=3), Weights("random:5", seed=5)]
    assert problem == "no installed package carries them and the model hub is out of reach"
    assert all(network.seed is not None for network in chosen)


def test_weights_that_are_nowhere_published_need_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "hub_answers", lambda: pytest.fail("asked"))
    for net in (backbone(), backbone(checkpoints=(absent("lost"),))):
        chosen, problem = resolve(net, Request(), [0], download=True)
        assert [network.label for network in chosen] == ["random:0"]
        assert problem == "no installed package carries them and none are published"


def test_downloads_that_fail_are_told_one_by_one(hub: Hub) -> None:
    def refuse() -> Path:
        raise ConnectionError("refused\nsecond line")

    net = backbone(checkpoints=(absent("a", fetch=refuse), absent("b", fetch=refuse)))
    chosen, problem = resolve(net, Request(), [0], download=True)
    assert [network.label for network in chosen] == ["random:0"]
    assert problem == "a: refused second line; b: refused second line"


def test_a_download_that_fails_without_a_word_is_told_too(hub: Hub) -> None:
    def refuse() -> Path:
        raise ConnectionResetError

    chosen, problem = resolve(backbone(checkpoints=(absent("a", fetch=refuse),)), Request(), [0], download=True)
    assert [network.label for network in chosen] == ["random:0"]
    assert problem is not None
    assert problem.startswith("a: ")


def test_a_download_of_a_plugin_that_hangs_is_ended(hub: Hub) -> None:
    def hang() -> Path:
        time.sleep(20)
        raise TimeoutError("slow")

    net = backbone(checkpoints=(absent("a", fetch=hang),), offered_by="posbench-edge 1.0")
    chosen, problem = resolve(net, Request(), [0], download=True, limit=0.2)
    assert [network.label for network in chosen] == ["random:0"]
    assert problem == f"a: {net.title}: it took longer than --time-limit 0.2 s, and was ended"


def test_the_second_source_serves_when_the_first_fails(hub: Hub, carried: Path) -> None:
    def refuse() -> Path:
        raise TimeoutError("slow")

    net = backbone(checkpoints=(absent("a", fetch=refuse), absent("b", fetch=lambda: carried)))
    assert resolve(net, Request(), [0], download=True) == ([Weights("b", sha(b"carried"))], None)


def test_pretrained_makes_missing_weights_an_error(offline: None) -> None:
    with pytest.raises(MissingError) as caught:
        resolve(backbone(), Request("pretrained"), [0], download=True)
    assert str(caught.value) == (
        "no trained weights for backbone 'net' (no installed package carries them and none are published): "
        "give --weights net=FILE or --weights random"
    )
    assert caught.value.exit_code == 4


def test_random_asks_for_nothing_else(carried: Path) -> None:
    net = backbone(checkpoints=(Checkpoint(label="package", find=lambda: pytest.fail("looked")),))
    assert resolve(net, Request("random"), [7], download=True) == ([Weights("random:7", seed=7)], None)


def test_a_file_for_one_backbone_leaves_the_mode_to_the_others(carried: Path) -> None:
    request = Request.parse([f"net={carried}", "random"])
    assert resolve(backbone(), request, [0], download=True)[0][0].label.startswith("file:carried.pth@")
    assert resolve(backbone("other"), request, [0], download=True)[0][0].label == "random:0"


@pytest.mark.parametrize("mode", weights.MODES)
def test_the_control_has_no_weights_whatever_was_asked(mode: str) -> None:
    assert resolve(CONTROL, Request(mode), [0, 1, 2], download=True) == ([NONE], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trained"], "--weights 'trained' is neither one of auto, pretrained, random nor NAME=PATH"),
        ([""], "--weights '' is neither"),
        (["auto", "random"], "--weights names several modes (auto, random): give one"),
        (["net=nowhere.pt"], "--weights net=nowhere.pt: there is no file 'nowhere.pt'"),
        (["net="], "--weights net=: there is no file ''"),
        (["net=."], "--weights net=.: there is no file '.'"),
        (["net={here}", "net={here}"], "--weights names two files for 'net': give one"),
    ],
)
def test_what_cannot_be_weights(options: list[str], message: str, carried: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Request.parse([option.format(here=carried) for option in options])
    assert str(caught.value).startswith(message)


def test_a_path_may_hold_what_separates(tmp_path: Path) -> None:
    path = tmp_path / "a=b,c.pt"
    path.touch()
    assert Request.parse([f"net={path}"]) == Request("auto", {"net": path})
    assert Request.parse([]) == Request()
    assert Request.parse(["random", "random"]).mode == "random"


def test_equal_files_are_the_same_weights_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pt").write_bytes(b"same")
    first, second = (
        resolve(backbone(), Request.parse([f"net={tmp_path / folder / 'w.pt'}"]), [0], download=True)[0][0]
        for folder in ("a", "b")
    )
    assert first == second
    (tmp_path / "b" / "w.pt").write_bytes(b"diff")
    third = resolve(backbone(), Request.parse([f"net={tmp_path / 'b' / 'w.pt'}"]), [0], download=True)[0][0]
    assert third.digest == sha(b"diff")


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_hub_that_answers_anything_is_there(status: int, hub: Hub) -> None:
    hub.status = status
    assert hub_answers()
    assert hub_answers()
    assert hub.asked == ["HEAD /"]


@pytest.mark.parametrize("value", ["1", "true", "ON", "Yes"])
def test_offline_mode_asks_nobody(value: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert not hub_answers()
    assert hub.asked == []


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_offline_mode_switched_off_is_off(value: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub_answers()


def test_a_closed_port_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    assert not hub_answers()


@pytest.mark.parametrize("answer", [b"", b"not HTTP at all\r\n\r\n"])
def test_a_server_that_speaks_no_http_is_no_hub(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert not hub_answers()
        thread.join()


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://hub", "file:///etc/passwd"])
def test_an_endpoint_that_is_no_web_address_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UsageError, match="it must start with https:// or http://"):
        hub_answers()


@pytest.mark.parametrize("endpoint", ["http://", "http://[", "http://127.0.0.1:port", "http://a b"])
def test_an_endpoint_that_cannot_be_reached_is_no_hub(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not hub_answers()


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
