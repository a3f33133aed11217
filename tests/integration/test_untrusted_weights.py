"""Weights files from untrusted sources: no code in them is run, and each error is reported."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from posbench.store.store import Store
from tests.conftest import TINY, Ran

SMALL = (
    *("--images", "leaves", "--image-size", "64", "--train-count", "4", "--test-count", "2", "--targets", "H"),
    *("--metrics", "spc", "--quiet"),
)
MARK = "executed"


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (MARK,)


def state() -> dict[str, torch.Tensor]:
    """Return random tensors that fit the network `tiny`."""
    shapes = {"one": (8, 3, 3, 3), "two": (12, 8, 3, 3), "three": (16, 12, 3, 3)}
    weights = {f"{name}.weight": torch.randn(shape) / 3 for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}


def header(text: bytes, length: int | None = None) -> bytes:
    """Return a safetensors file of this header alone, with `length` as its stated length."""
    return struct.pack("<Q", len(text) if length is None else length) + text


def raw(path: Path) -> None:
    path.write_bytes(pickle.dumps({"one.weight": Malicious()}))


def legacy(path: Path) -> None:
    torch.save({"one.weight": Malicious()}, path, _use_new_zipfile_serialization=False)


def lacking(path: Path) -> None:
    tensors = state()
    del tensors["one.bias"]
    save_file(tensors, path)


def truncated(path: Path) -> None:
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:-1000])


LIES = b'{"one.weight": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}'
UNREAD = "posbench: weights 'w.{suffix}' cannot be read ("


@pytest.mark.parametrize(
    ("suffix", "make", "message"),
    [
        ("pt", lambda path: torch.save({"one.weight": Malicious()}, path), UNREAD),
        ("pt", legacy, UNREAD),
        ("pt", raw, UNREAD),
        ("pt", lambda path: path.touch(), UNREAD),
        ("pt", lambda path: path.write_bytes(b"no weights at all" * 9), UNREAD),
        ("pt", truncated, UNREAD),
        ("pt", lambda path: torch.save(torch.zeros(3), path), "posbench: weights 'w.pt' hold a Tensor, not named"),
        ("pt", lambda path: torch.save({"features.0.weight": torch.zeros(3)}, path), "and 3 more in one, three, two"),
        ("pt", lambda path: torch.save(state() | {"two.weight": torch.zeros(3)}, path), "two.weight\n"),
        ("safetensors", lambda path: path.touch(), UNREAD),
        ("safetensors", lambda path: path.write_bytes(b"no weights at all" * 9), UNREAD),
        ("safetensors", lambda path: path.write_bytes(header(b"{}", 2**60)), UNREAD),
        ("safetensors", lambda path: path.write_bytes(header(b'{"one.weight":' + b" " * 10**8 + b"1}")), UNREAD),
        ("safetensors", lambda path: path.write_bytes(header(LIES)), UNREAD),
        (
            "safetensors",
            lambda path: save_file({k: v for k, v in state().items() if k != "one.bias"}, path),
            "one.bias\n",
        ),
    ],
)
def test_weights_that_cannot_be_used_end_the_run(
    suffix: str, make: Callable[[Path], object], message: str, tiny: str, posbench: Callable[..., Ran]
) -> None:
    make(Path(f"w.{suffix}"))
    ran = posbench("run", "--backbones", tiny, "--weights", f"{tiny}=w.{suffix}", "--paddings", "zero", *SMALL)
    assert (ran.code, ran.out) == (4, "")
    [line] = ran.err.splitlines()
    assert message.format(suffix=suffix) in line + "\n"
    assert not Path(MARK).exists()
    with Store(Path("posbench.db")) as store:
        assert store.records() == []


REWRITES = """
from posbench import Padding, hookimpl


def pad(x, sides):
    import torch
    import torch.nn.functional as F
    torch.save({name: tensor + 1 for name, tensor in torch.load("twin.pt").items()}, "twin.pt")
    return F.pad(x, sides)


@hookimpl
def posbench_paddings():
    return [Padding(name="rewrites", summary="", version="1", pad=pad)]
"""


def test_a_file_that_changes_under_its_name_is_other_weights(
    tiny: str, install: Callable[..., None], posbench: Callable[..., Ran]
) -> None:
    install("posbench-rewrites", REWRITES)
    install("posbench-twin", TINY.replace('name="tiny"', 'name="twin"'))
    for name in (tiny, "twin"):
        torch.save(state(), f"{name}.pt")
    files = ("--weights", "tiny=tiny.pt", "--weights", "twin=twin.pt")
    # A change during a run is noticed ...
    ran = posbench("run", "--backbones", "tiny,twin", "--paddings", "rewrites", *files, *SMALL)
    assert ran.code == 1, ran
    assert "weights 'twin.pt' have changed since the run began: give it again" in ran.err
    # ... and the next run treats the file as other weights.
    assert posbench("run", "--backbones", "tiny,twin", "--paddings", "zero", *files, *SMALL).code == 0
    with Store(Path("posbench.db")) as store:
        outcomes = [record.outcome for record in store.records() if record.outcome.status == "ok"]
        cells = [(outcome.identity["padding"]["name"], outcome.identity["weights"]) for outcome in outcomes]
    assert [name for name, _ in cells] == ["rewrites", "zero", "zero"]
    assert cells[0][1] == cells[1][1]
    assert cells[1][1]["sha256"] == hashlib.sha256(Path("tiny.pt").read_bytes()).hexdigest()
    assert cells[2][1]["sha256"] == hashlib.sha256(Path("twin.pt").read_bytes()).hexdigest()
    assert cells[1][1]["sha256"] != cells[2][1]["sha256"]


def test_a_name_that_a_terminal_would_obey_is_shown_as_text(tiny: str, posbench: Callable[..., Ran]) -> None:
    torch.save(state(), "\x1b[31m\n.pt")
    run = ("run", "--backbones", tiny, "--weights", f"{tiny}=\x1b[31m\n.pt", "--paddings", "zero", *SMALL)
    assert posbench(*run).code == 0
    ran = posbench("leaderboard", "--csv", "-")
    assert ran.code == 0
    assert r"file:\x1b[31m\n.pt@" in ran.out
