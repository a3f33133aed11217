"""Decides which weights each backbone runs on, before any network is built; imports no torch."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from http.client import HTTPException
from pathlib import Path

from posbench.core import text as legible
from posbench.core.errors import MissingError, UsageError, one_line
from posbench.core.files import content_hash, user_path
from posbench.plugin.components import Backbone, Checkpoint
from posbench.plugin.sandbox import call_in_subprocess, naming_errors

MODES = ("auto", "pretrained", "random")


@dataclass(frozen=True)
class Weights:
    """The weights of one network.

    Attributes:
        label: what stands in the `weights` column.
        digest: SHA-256 of the file, or empty where there is none (random weights, no weights, not yet downloaded).
        path: the file, if they come from one.
        checkpoint: how the file is read, if a plugin says so.
        seed: for random weights.
    """

    label: str
    digest: str = ""
    path: Path | None = field(default=None, compare=False)
    checkpoint: Checkpoint | None = field(default=None, compare=False)
    seed: int | None = None


NONE = Weights("none")


@dataclass(frozen=True)
class Request:
    """What `--weights` asked for.

    Attributes:
        mode: one of `MODES`, for every backbone without a file.
        files: checkpoints by backbone name.
    """

    mode: str = "auto"
    files: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Sequence[str]) -> Request:
        """From the values of a repeated `--weights`: at most one mode, and any number of NAME=PATH.

        Raises:
            UsageError: if a value is neither, a name or the mode comes twice, or a file does not exist.
        """
        modes = [option for option in options if "=" not in option]
        files: dict[str, Path] = {}
        for option in options:
            name, equals, path = option.partition("=")
            if not equals:
                continue
            if name in files:
                raise UsageError(f"--weights names two files for {name!r}: give one")
            files[name] = user_path(path)
            if not files[name].is_file():
                raise UsageError(f"--weights {option}: there is no file {path!r}")
        for mode in modes:
            if mode not in MODES:
                raise UsageError(f"--weights {mode!r} is neither one of {', '.join(MODES)} nor NAME=PATH")
        if len(set(modes)) > 1:
            raise UsageError(f"--weights names several modes ({', '.join(modes)}): give one")
        return cls(modes[0] if modes else "auto", files)


def resolve(
    backbone: Backbone, request: Request, seeds: Sequence[int], *, download: bool, limit: float | None = None
) -> tuple[list[Weights], str | None]:
    """The weights that a backbone runs on, each of them a network of its own.

    Args:
        backbone: the backbone.
        request: what the user asked for.
        seeds: draws the networks, should they be random.
        download: fetch what the hub offers; otherwise it is only named, with an empty digest.
        limit: seconds that a plugin may take to find its weights, and to fetch them, or None.

    Returns:
        The weights, and why trained ones could not be had where `auto` fell back on random ones.

    Raises:
        UsageError: if a file is given for a backbone without weights.
        MissingError: if trained weights are required and cannot be had.
        ComponentError: if a plugin that is to find its weights raises, or takes its process down, or too long.
    """
    if backbone.weightless:
        if backbone.name in request.files:
            raise UsageError(f"--weights names a file for {backbone.name!r}, which has no weights: leave it out")
        return [NONE], None
    random = [Weights(f"random:{seed}", seed=seed) for seed in seeds]
    if backbone.own_weights and backbone.name in request.files:
        raise UsageError(f"--weights names a file for {backbone.name!r}, which has its own: load it into the module")
    if backbone.name in request.files:
        path = request.files[backbone.name]
        digest = content_hash(path)
        return [Weights(f"file:{legible.name(path.name)}@{digest[:8]}", digest, path)], None
    if request.mode == "random":
        return random, None
    if backbone.own_weights:
        return [Weights(f"module:{backbone.name}@{backbone.own_weights[:8]}", backbone.own_weights)], None
    trained, problem = _trained(backbone, download=download, limit=limit)
    if trained is not None:
        return [trained], None
    if request.mode == "pretrained":
        raise MissingError(
            f"no trained weights for backbone {backbone.name!r} ({problem}): "
            f"give --weights {backbone.name}=FILE or --weights random"
        )
    return random, problem


def _trained(backbone: Backbone, *, download: bool, limit: float | None) -> tuple[Weights | None, str]:
    """The first checkpoint that is on this machine, else the first that can be fetched; or None and the reason."""
    for checkpoint in backbone.checkpoints:
        if found := call_in_subprocess(backbone, partial(_file, backbone, checkpoint.find), limit):
            return Weights(checkpoint.label, found[1], found[0], checkpoint), ""
    remote = [(checkpoint, checkpoint.fetch) for checkpoint in backbone.checkpoints if checkpoint.fetch]
    if not remote:
        return None, "no installed package carries them and none are published"
    if not hub_answers():
        return None, "no installed package carries them and the model hub is out of reach"
    if not download:
        return Weights(remote[0][0].label, "", None, remote[0][0]), ""
    problems = []
    for checkpoint, fetch in remote:
        try:
            found = call_in_subprocess(backbone, partial(_file, backbone, fetch), limit)
        # What the hub's client raises for a refusal or a dropped connection has no common base.
        except Exception as error:
            problems.append(f"{checkpoint.label}: {one_line(error.__cause__ or error)}")
            continue
        if found:
            return Weights(checkpoint.label, found[1], found[0], checkpoint), ""
        problems.append(f"{checkpoint.label}: nothing was fetched")
    return None, "; ".join(problems)


def _file(backbone: Backbone, where: Callable[[], Path | None]) -> tuple[Path, str] | None:
    """The file that a plugin names, with its hash."""
    with naming_errors(backbone):
        path = where()
        return None if path is None else (Path(path), content_hash(Path(path)))


@cache
def hub_answers() -> bool:
    """Whether the model hub can be reached, asked once and briefly: its client retries for most of a minute.

    Honours `HF_HUB_OFFLINE` and `HF_ENDPOINT`, as the client does.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"HF_ENDPOINT is {endpoint!r}: it must start with https:// or http://")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310  the scheme was checked above
        with urllib.request.urlopen(request, timeout=3):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError, HTTPException):
        return False
