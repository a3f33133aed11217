"""A module of the user's own as a backbone: a copy of it, identified by what it is and by the weights that it has."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from posbench.core.errors import PosbenchError, UsageError, nearest, one_line
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import isolated_state

#: Takes the module and images [n, 3, height, width], and returns the taps.
Reader = Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]]
#: The side of the one image that a module is tried on, in pixels.
TRIAL = 224


class _ReadEnough(Exception):  # noqa: N818  nothing went wrong
    """Every layer that is read from has run."""


class Tapped(nn.Module):
    """A module whose forward returns the results of some of its layers, and computes nothing beyond the last of them.

    Args:
        module: the module.
        layers: names of its layers, as `named_modules` spells them, in the order of the taps.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.layers = tuple(layers)
        self.whole = False

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        read: dict[str, torch.Tensor] = {}

        def note(layer: str, *call: Any) -> None:
            result = call[-1]
            if layer in read:
                raise UsageError(f"layer {layer!r} runs more than once: name one that runs once, or give a function")
            if not torch.is_tensor(result) or result.ndim != 4:
                raise UsageError(f"layer {layer!r} returns {_described(result)}, no map [n, channels, height, width]")
            # What comes after may write into its result, as an activation in place does.
            read[layer] = result.clone()
            if len(read) == len(self.layers) and not self.whole:
                raise _ReadEnough

        with ExitStack() as hooks:
            for layer in self.layers:
                # By name, as what stands there may be replaced while norms are folded.
                hook = self.module.get_submodule(layer).register_forward_hook(partial(note, layer))
                hooks.callback(hook.remove)
            try:
                self.module(x)
            except _ReadEnough:
                pass
            except UsageError:
                raise
            except Exception:
                # What comes after the last layer is not ours: heads take images of one size alone.
                if len(read) < len(self.layers):
                    raise
        if missing := [layer for layer in self.layers if layer not in read]:
            raise UsageError(f"layer {missing[0]!r} does not run in the module's forward: name another")
        return [read[layer] for layer in self.layers]


class Read(nn.Module):
    """A module whose forward returns what a function reads from it."""

    def __init__(self, module: nn.Module, reader: Reader) -> None:
        super().__init__()
        self.module = module
        self.reader = reader

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(self.reader(self.module, x))


def backbone(
    module: nn.Module,
    taps: Sequence[str] | Reader | None = None,
    *,
    name: str | None = None,
    mean: Sequence[float] = Backbone.mean,
    std: Sequence[float] = Backbone.std,
    version: str = "1",
) -> Backbone:
    """A module as a backbone, with the weights that it has now. The module itself is not touched, now or later.

    Its copy runs in evaluation mode and float32. What identifies it in the store are its parameters and buffers, its
    `repr`, the source of its classes and of the function, the taps, mean and std; what none of these shows, such as a
    value that a function finds in its surroundings, is for the version to tell.

    Args:
        module: takes float images [n, 3, height, width], normalised with `mean` and `std`.
        taps: names of layers that return maps [n, channels, height, width], from the shallowest to the deepest, each
            run once; or a function of the module and the images that returns such maps; by default, what the module
            itself returns.
        name: what it is called; by default as its class.
        mean, std: per channel (red, green, blue), for pixels in [0, 1].
        version: yours, to tell two states of a module apart that look the same.

    Raises:
        UsageError: if a layer is unknown, the module cannot be copied, or does not return maps for one image of
            224 × 224 pixels, or mean or std are not three numbers.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"expected a torch.nn.Module, not {_described(module)}")
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise UsageError(f"module {type(module).__name__} cannot be copied ({one_line(error)})") from error
    own = own.to("cpu", torch.float32).eval().requires_grad_(False)
    network = _tapped(own, taps)
    count = _tried(network)

    def build() -> nn.Module:
        made = copy.deepcopy(network)
        # There, only shapes are followed.
        return made.to("meta") if torch.get_default_device().type == "meta" else made

    try:
        record = Backbone(
            name=name or type(module).__name__,
            summary="a module of your own",
            version=version,
            build=build,
            taps=count,
            mean=mean,  # type: ignore[arg-type]  # made a tuple there
            std=std,  # type: ignore[arg-type]
            own_weights=state_digest(own),
        )
    except ValueError as error:
        raise UsageError(f"module {one_line(error)}") from error
    read = _source(taps) if callable(taps) else taps and list(taps)
    look = json.dumps([_look(own), read, list(record.mean), list(record.std)])
    return replace(record, version=f"{version}-{hashlib.sha256(look.encode()).hexdigest()[:16]}")


def _tapped(module: nn.Module, taps: Sequence[str] | Reader | None) -> nn.Module:
    if taps is None:
        return Read(module, _called)
    if callable(taps):
        return Read(module, taps)
    if isinstance(taps, str) or not taps or len(set(taps)) < len(taps):
        raise UsageError(f"taps={taps!r}: give a list of different layers' names, or a function")
    known = [layer for layer, _ in module.named_modules() if layer]
    for layer in taps:
        if layer not in known:
            raise UsageError(f"unknown layer {layer!r}{nearest(str(layer), known) or ': see named_modules()'}")
    return Tapped(module, taps)


def _called(module: nn.Module, x: torch.Tensor) -> Sequence[torch.Tensor]:
    taps: Sequence[torch.Tensor] = module(x)
    return taps


def _tried(network: nn.Module) -> int:
    """How many taps it has; found by running it on one black image, to the end."""
    if isinstance(network, Tapped):
        network.whole = True
    try:
        with isolated_state(), torch.no_grad():
            found = network(torch.zeros(1, 3, TRIAL, TRIAL))
    except PosbenchError:
        raise
    except Exception as error:
        raise UsageError(
            f"the module cannot take an image of {TRIAL} × {TRIAL} pixels ({type(error).__name__}: {one_line(error)})"
        ) from error
    if isinstance(network, Tapped):
        network.whole = False
    for tap in found:
        if not torch.is_tensor(tap) or tap.ndim != 4:
            raise UsageError(f"a tap is {_described(tap)}, no map [n, channels, height, width]: name layers in taps=")
    if not found:
        raise UsageError("no taps were returned: name layers in taps=")
    return len(found)


def _described(value: object) -> str:
    shape = f" of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else ""
    return f"a {type(value).__name__}{shape}"


def state_digest(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a module's parameters and buffers: their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _look(module: nn.Module) -> list[str]:
    """What a module's weights do not show of it: its layers with their settings, and what its own classes do."""
    classes = {type(one): None for one in module.modules()}
    return [_without_addresses(repr(module)), *(_source(one) for one in classes if not _is_torchs(one))]


def _is_torchs(one: type) -> bool:
    return one.__module__.partition(".")[0] == "torch"


def _source(thing: Any) -> str:
    """The source of a function or class or, where it was typed somewhere unknown, what Python made of it."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return _without_addresses("\n".join(_compiled(getattr(thing, "forward", thing))))


def _compiled(function: Any) -> Iterator[str]:
    yield getattr(function, "__qualname__", type(function).__qualname__)
    if code := getattr(function, "__code__", None):
        yield from (code.co_code.hex(), repr(code.co_names), repr(code.co_consts))


def _without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+", "", text)
