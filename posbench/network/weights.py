"""The choice of weights for each backbone, before any network is built; imports no torch."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from http.client import HTTPException
from pathlib import Path

from posbench.core.errors import MissingError, UsageError, one_line
from posbench.core.files import content_hash, user_path
from posbench.core.text import printable_filename
from posbench.plugin.components import Backbone, Checkpoint
from posbench.plugin.sandbox import call_in_subprocess, naming_errors

MODES = ("auto", "pretrained", "random")


@dataclass(frozen=True)
class Weights:
    """The weights of one network.

    Attributes:
        label: the value of the `weights` column.
        digest: SHA-256 of the file; empty without one (random weights, no weights, not yet downloaded).
        path: the file, or None.
        checkpoint: the plugin's checkpoint, which reads the file; None for a file of the user.
        seed: the seed of random weights, or None.
    """

    label: str
    digest: str = ""
    path: Path | None = field(default=None, compare=False)
    checkpoint: Checkpoint | None = field(default=None, compare=False)
    seed: int | None = None


NONE = Weights("none")


@dataclass(frozen=True)
class Request:
    """The weights that the user requested with `--weights`.

    Attributes:
        mode: one of `MODES`, for every backbone without a file.
        files: the checkpoint file of each backbone, by name.
    """

    mode: str = "auto"
    files: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Sequence[str]) -> Request:
        """Parse the values of a repeated `--weights`: at most one mode, and any number of NAME=PATH.

        Raises:
            UsageError: if a value is neither, a name or the mode is given twice, or a file does not exist.
        """
        modes = [option for option in options if "=" not in option]
        files: dict[str, Path] = {}
        for name, path in (option.split("=", 1) for option in options if "=" in option):
            if name in files:
                raise UsageError(f"--weights names two files for {name!r}: give one")
            files[name] = user_path(path)
            if not files[name].is_file():
                raise UsageError(f"--weights {name}={path}: there is no file {path!r}")
        for mode in modes:
            if mode not in MODES:
                raise UsageError(f"--weights {mode!r} is neither one of {', '.join(MODES)} nor NAME=PATH")
        if len(set(modes)) > 1:
            raise UsageError(f"--weights names several modes ({', '.join(modes)}): give one")
        return cls(modes[0] if modes else "auto", files)


def resolve(
    backbone: Backbone, request: Request, seeds: Sequence[int], *, download: bool, limit: float | None = None
) -> tuple[list[Weights], str | None]:
    """Return the weights that a backbone is run with; each makes a network of its own.

    Args:
        seeds: the seeds of random weights.
        download: download weights from the hub; otherwise they are only named, with an empty digest.
        limit: the seconds that a plugin may take to find its weights, and to fetch them; None for no limit.

    Returns:
        The weights; and, where `auto` fell back to random ones, the reason why there are no trained ones, else None.

    Raises:
        UsageError: if a file is given for a backbone without weights.
        MissingError: if trained weights are required and not available.
        ComponentError: if a plugin raises, ends its process or exceeds the limit while it finds its weights.
    """
    path = request.files.get(backbone.name)
    if backbone.weightless:
        if path:
            raise UsageError(f"--weights names a file for {backbone.name!r}, which has no weights: leave it out")
        return [NONE], None
    random = [Weights(f"random:{seed}", seed=seed) for seed in seeds]
    if path and backbone.own_weights:
        raise UsageError(f"--weights names a file for {backbone.name!r}, which has its own: load it into the module")
    if path:
        digest = content_hash(path)
        return [Weights(f"file:{printable_filename(path.name)}@{digest[:8]}", digest, path)], None
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
    """Return the first checkpoint on this machine, else the first that can be fetched; or None and the reason."""
    for checkpoint in backbone.checkpoints:
        if file := call_in_subprocess(backbone, partial(_hashed_file, backbone, checkpoint.find), limit):
            return Weights(checkpoint.label, file[1], file[0], checkpoint), ""
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
            file = call_in_subprocess(backbone, partial(_hashed_file, backbone, fetch), limit)
        # The errors that the hub's client raises have no common base.
        except Exception as error:
            problems.append(f"{checkpoint.label}: {one_line(error.__cause__ or error)}")
            continue
        if file:
            return Weights(checkpoint.label, file[1], file[0], checkpoint), ""
        problems.append(f"{checkpoint.label}: nothing was fetched")
    return None, "; ".join(problems)


def _hashed_file(backbone: Backbone, find: Callable[[], Path | None]) -> tuple[Path, str] | None:
    """Return the file that a plugin finds or fetches, with its hash."""
    with naming_errors(backbone):
        path = find()
        return None if path is None else (Path(path), content_hash(Path(path)))


@cache
def hub_answers() -> bool:
    """Return True if the model hub can be reached. Tried once, for 3 seconds: the hub's client retries for a minute.

    `HF_HUB_OFFLINE` and `HF_ENDPOINT` are respected as by the client.
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
        return True  # an error status is an answer
    except (OSError, ValueError, HTTPException):
        return False
