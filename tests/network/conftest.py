"""A local model hub for the tests of weights."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from posbench.network.weights import hub_answers

SMALL = "test_resnet.r160_in1k"
REPOSITORY = "timm/test_resnet.r160_in1k"
COMMIT = "0" * 40


@pytest.fixture
def fresh_hub_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
