"""The user's own module as a backbone: a copy, identified by its structure and its weights."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from posbench.core.errors import PosbenchError, UsageError, nearest, one_line
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import isolated_state

#: A function of the module and images [n, 3, height, width] that returns the taps.
Reader = Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]]
#: The side, in pixels, of the image that a new backbone is tried on.
TRIAL_SIZE = 224


class _AllTapsRead(Exception):  # noqa: N818  not an error
    """Stops the forward pass once the last tap is read."""


class LayerTaps(nn.Module):
    """A module whose forward returns the outputs of its named layers, and stops after the last of them."""

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.layers = tuple(layers)
        self.run_to_end = False

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs: dict[str, torch.Tensor] = {}

        def record(layer: str, *call: Any) -> None:
            output = call[-1]
            if layer in outputs:
                raise UsageError(f"layer {layer!r} runs more than once: name one that runs once, or give a function")
            if not torch.is_tensor(output) or output.ndim != 4:
                raise UsageError(f"layer {layer!r} returns {_described(output)}, no map [n, channels, height, width]")
            # Copied, as later layers may write into it: in-place activations do.
            outputs[layer] = output.clone()
            if len(outputs) == len(self.layers) and not self.run_to_end:
                raise _AllTapsRead

        with ExitStack() as hooks:
            for layer in self.layers:
                # Looked up by name, as fusing BatchNorm may replace the layer.
                hook = self.module.get_submodule(layer).register_forward_hook(partial(record, layer))
                hooks.callback(hook.remove)
            try:
                self.module(x)
            except _AllTapsRead:
                pass
            except UsageError:
                raise
            except Exception:
                # Errors after the last tap do not matter: a head may take images of one size only.
                if len(outputs) < len(self.layers):
                    raise
        if missing := [layer for layer in self.layers if layer not in outputs]:
            raise UsageError(f"layer {missing[0]!r} does not run in the module's forward: name another")
        return [outputs[layer] for layer in self.layers]


class FunctionTaps(nn.Module):
    """A module whose forward returns the taps that a function reads from another module."""

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
    """Return a module as a backbone with its present weights. The backbone is a copy; the module is never changed.

    The copy runs in evaluation mode and float32. In the store it is identified by its parameters and buffers, its
    `repr`, the source of its classes and of the function, the taps, mean and std. Change `version` for any difference
    that these do not show, such as the value of a global variable that a function uses.

    Args:
        module: takes float images [n, 3, height, width], normalised with `mean` and `std`.
        taps: names of layers that return maps [n, channels, height, width], from the shallowest to the deepest, each
            run once; or a function of the module and the images that returns such maps; by default, the output of the
            module itself.
        name: the name of the backbone; by default that of the module's class.
        mean, std: per channel (red, green, blue), for pixels in [0, 1].
        version: distinguishes states of a module that nothing else distinguishes.

    Raises:
        UsageError: if a layer is unknown, the module cannot be copied, or does not return maps for one image of
            224 × 224 pixels, or mean or std are not three numbers.
    """
    own = _copied(module)
    network = _with_taps(own, taps)
    count = _count_taps(network)

    def build() -> nn.Module:
        fresh = copy.deepcopy(network)
        # The default device is `meta` where only shapes are computed.
        return fresh.to("meta") if torch.get_default_device().type == "meta" else fresh

    try:
        record = Backbone(
            name=name or type(module).__name__,
            summary="a module of your own",
            version=version,
            build=build,
            taps=count,
            mean=mean,  # type: ignore[arg-type]  # the record makes it a tuple
            std=std,  # type: ignore[arg-type]
            own_weights=state_digest(own),
        )
    except ValueError as error:
        raise UsageError(f"module {one_line(error)}") from error
    return replace(record, version=f"{version}-{_identity(own, taps, record)}")


def _identity(module: nn.Module, taps: Sequence[str] | Reader | None, record: Backbone) -> str:
    """Return a hash of the module's structure, the taps and the normalisation."""
    reader = _source(taps) if callable(taps) else taps and list(taps)
    identity = json.dumps([_structure(module), reader, list(record.mean), list(record.std)])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _copied(module: object) -> nn.Module:
    """Return a frozen copy in float32 and evaluation mode, on the CPU."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"expected a torch.nn.Module, not {_described(module)}")
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise UsageError(f"module {type(module).__name__} cannot be copied ({one_line(error)})") from error
    return own.to("cpu", torch.float32).eval().requires_grad_(False)


def _with_taps(module: nn.Module, taps: Sequence[str] | Reader | None) -> nn.Module:
    if taps is None:
        return FunctionTaps(module, nn.Module.__call__)
    if callable(taps):
        return FunctionTaps(module, taps)
    if isinstance(taps, str) or not taps or len(set(taps)) < len(taps):
        raise UsageError(f"taps={taps!r}: give a list of different layers' names, or a function")
    known = [layer for layer, _ in module.named_modules() if layer]
    for layer in taps:
        if layer not in known:
            raise UsageError(f"unknown layer {layer!r}{nearest(str(layer), known) or ': see named_modules()'}")
    return LayerTaps(module, taps)


def _count_taps(network: nn.Module) -> int:
    """Return the number of taps, after running the network to its end on one black image."""
    if isinstance(network, LayerTaps):
        network.run_to_end = True
    try:
        with isolated_state(), torch.no_grad():
            taps = network(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
    except PosbenchError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {one_line(error)}"
        size = f"{TRIAL_SIZE} × {TRIAL_SIZE} pixels"
        raise UsageError(f"the module cannot take an image of {size} ({problem})") from error
    if isinstance(network, LayerTaps):
        network.run_to_end = False
    for tap in taps:
        if not torch.is_tensor(tap) or tap.ndim != 4:
            raise UsageError(f"a tap is {_described(tap)}, no map [n, channels, height, width]: name layers in taps=")
    if not taps:
        raise UsageError("no taps were returned: name layers in taps=")
    return len(taps)


def _described(value: object) -> str:
    shape = f" of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else ""
    return f"a {type(value).__name__}{shape}"


def state_digest(module: nn.Module) -> str:
    """Return the SHA-256, in hexadecimal, of a module's parameters and buffers: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _structure(module: nn.Module) -> list[str]:
    """Return a module's layers with their settings, and the source of the classes that are not torch's."""
    classes = {type(layer): None for layer in module.modules()}
    own = [layer_class for layer_class in classes if layer_class.__module__.partition(".")[0] != "torch"]
    return [_without_addresses(repr(module)), *map(_source, own)]


def _source(function_or_class: Any) -> str:
    """Return the source of a function or class; where it is not available, as in a shell, the bytecode."""
    try:
        return inspect.getsource(function_or_class)
    except (OSError, TypeError):
        function = getattr(function_or_class, "forward", function_or_class)
        lines = [getattr(function, "__qualname__", type(function).__qualname__)]
        if code := getattr(function, "__code__", None):
            lines += [code.co_code.hex(), repr(code.co_names), repr(code.co_consts)]
        return _without_addresses("\n".join(lines))


def _without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+", "", text)
