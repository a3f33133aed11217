"""The sources of a backbone's weights, their order, and the messages for missing ones."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.core.errors import MissingError, UsageError
from posbench.network import weights
from posbench.network.weights import NONE, Request, Weights, hub_answers, resolve
from posbench.plugin.components import Checkpoint
from tests.factories import CONTROL, backbone
from tests.network.conftest import Hub

pytestmark = pytest.mark.usefixtures("fresh_hub_state")


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
