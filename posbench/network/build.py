"""Construction of frozen networks: a backbone with the weights of a checkpoint, or with random ones."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from posbench.core.errors import ComponentError, Inapplicable, MissingError, PosbenchError, one_line
from posbench.core.files import content_hash
from posbench.data.dead_leaves import dead_leaves
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import isolated_state, naming_errors, sandboxed

#: A constant scale at or below this was switched off by its initialiser; timm's layer scales start at 1e-6 to 1e-1.
NEARLY_ZERO = 0.1
CALIBRATION_IMAGES = 32
CALIBRATION_SIZE = 224


def build(backbone: Backbone, weights: Weights) -> nn.Module:
    """Return the network in evaluation mode, without gradients, in channels-last layout, on the CPU.

    torch's global random state is left unchanged.

    Raises:
        MissingError: if a user's checkpoint lacks a tensor that the taps depend on, cannot be read, or has changed
            since its digest was taken.
        ComponentError: if that holds for a checkpoint of the backbone's own; or if the backbone raises or builds no
            module.
    """
    with isolated_state(weights.label):
        torch.manual_seed(0 if weights.seed is None else weights.seed)
        network = untrained(backbone)
        if weights.path is not None:
            try:
                _load_file(network, weights, weights.path, backbone)
            except MissingError as error:
                if weights.checkpoint is None:
                    raise
                raise ComponentError(f"{backbone.title}: {error}") from error  # the plugin's fault, not the user's
        elif weights.seed is not None:
            if backbone.own_weights:
                reinitialise(network, backbone)
            prepare_random(network, backbone)
    network.requires_grad_(False)
    for tensor in network.parameters():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network


def _load_file(network: nn.Module, weights: Weights, path: Path, backbone: Backbone) -> None:
    state = _read_state(weights, path, backbone)
    if weights.digest and content_hash(path) != weights.digest:
        raise MissingError(f"weights {path.name!r} have changed since the run began: give it again")
    load(network, state, backbone, weights.label)


def untrained(backbone: Backbone) -> nn.Module:
    """Return the network that the backbone builds, in evaluation mode.

    Raises:
        ComponentError: if it raises, or builds something else than a module.
    """
    with naming_errors(backbone):
        network = backbone.build()
        if not isinstance(network, nn.Module):
            raise TypeError(f"build returned {type(network).__name__}, which is no torch.nn.Module")
        return network.eval()


def _read_state(weights: Weights, path: Path, backbone: Backbone) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a checkpoint file, without executing anything in it."""
    try:
        if weights.checkpoint and weights.checkpoint.read:
            with sandboxed(backbone):
                tensors = weights.checkpoint.read(path)
                if not isinstance(tensors, Mapping) or not all(torch.is_tensor(value) for value in tensors.values()):
                    raise TypeError(f"the reader of weights {path.name!r} returned something else than named tensors")
            return tensors
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ComponentError:
        raise
    except pickle.UnpicklingError as error:
        problem = "no checkpoint, or one that holds more than tensors; nothing in it was run"
        raise MissingError(f"weights {path.name!r} cannot be read ({problem})") from error
    # The errors that parsers raise for untrusted files have no common base.
    except Exception as error:
        raise MissingError(f"weights {path.name!r} cannot be read ({one_line(error)})") from error
    # Training scripts often save the tensors under a key; DataParallel prefixes their names.
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise MissingError(f"weights {path.name!r} hold a {type(state).__name__}, not named tensors")
    return {re.sub(r"^module\.", "", str(name)): value for name, value in state.items() if torch.is_tensor(value)}


def load(network: nn.Module, state: Mapping[str, torch.Tensor], backbone: Backbone, label: str) -> None:
    """Copy a checkpoint's tensors into the network; tensors that no tap depends on, as a classifier's, may be missing.

    Raises:
        MissingError: if required tensors are missing or have another shape; names them.
    """
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    # Finding the required tensors takes a forward and a backward pass, so it is done for incomplete checkpoints only.
    absent = own.keys() - fitting.keys()
    with naming_errors(backbone):
        missing = sorted(required_tensors(network) & absent) if absent else []
    if missing:
        shown = ", ".join(missing[:3])
        if len(missing) > 3:
            shown += f" and {len(missing) - 3} more in {', '.join(dict.fromkeys(n.partition('.')[0] for n in missing))}"
        raise MissingError(f"weights {label} do not fit backbone {backbone.name!r}: they lack {shown}")
    network.load_state_dict(fitting, strict=False)


def required_tensors(network: nn.Module) -> set[str]:
    """Return the names of the tensors that the taps depend on: parameters with gradients, and their layers' buffers."""
    network.requires_grad_(True)
    image = torch.zeros(1, 3, CALIBRATION_SIZE, CALIBRATION_SIZE)
    with torch.enable_grad():
        sum(tap.float().sum() for tap in network(image)).backward()
    names = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad(set_to_none=True)
    # A normalisation may have statistics but no parameters.
    bare = {name for name, module in network.named_modules() if next(module.parameters(recurse=False), None) is None}
    owners = {name.rpartition(".")[0] for name in names} | bare
    return names | {
        name
        for name, buffer in network.named_buffers()
        if name.rpartition(".")[0] in owners and buffer.is_floating_point() and name in network.state_dict()
    }


@torch.no_grad()
def reinitialise(network: nn.Module, backbone: Backbone) -> None:
    """Draw the weights of a network anew by the `reset_parameters` of its layers.

    Raises:
        Inapplicable: if a layer has parameters and no such method.
    """
    for name, layer in network.named_modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            with naming_errors(backbone):
                reset()
        elif any(True for _ in layer.parameters(recurse=False)):
            raise Inapplicable(
                f"{backbone.title} cannot be made untrained: {type(layer).__name__} {name!r} has parameters, "
                "but no method reset_parameters that draws them"
            )


@torch.no_grad()
def prepare_random(network: nn.Module, backbone: Backbone) -> None:
    """Prepare an untrained network so that all its branches contribute to the taps.

    Scales that start at or near zero (the last norm of a residual branch, layer scales) become 1. BatchNorm takes its
    statistics from 32 fixed dead-leaves images under the network's native padding. Neither depends on the job's images
    or padding.
    """
    for name, parameter in network.named_parameters():
        is_scale = parameter.numel() == max(parameter.shape, default=1) and not name.endswith("bias")
        if is_scale and (parameter == (first := parameter.flatten()[0])).all() and first.abs() <= NEARLY_ZERO:
            parameter.fill_(1)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # a plain average, here over one batch
    with naming_errors(backbone):
        network(normalise(_calibration_images(), backbone))
    for norm in norms:
        norm.eval()


@cache
def _calibration_images() -> torch.Tensor:
    images = [dead_leaves(np.random.default_rng([2, i]), CALIBRATION_SIZE) for i in range(CALIBRATION_IMAGES)]
    return torch.from_numpy(np.stack(images))


def normalise(pixels: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Return the backbone's input from uint8 [n, height, width, 3]: float32 [n, 3, height, width], channels last."""
    # The dtype is explicit, since a plugin may have changed torch's default.
    mean, std = (torch.tensor(v, dtype=torch.float32, device=pixels.device) for v in (backbone.mean, backbone.std))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def smallest_size(backbone: Backbone, size: int) -> int | None:
    """Return the smallest image size that the network can take: `size`, or a multiple of 32 above it, up to 1024.

    Only shapes are computed. Returns None if that is impossible (some networks compute with values while they are
    built) or if no size works; running the network then raises an error that says why.
    """
    try:
        with isolated_state(), torch.device("meta"):
            network = untrained(backbone)
    except PosbenchError:
        return None
    sizes = (size, *range(size - size % 32 + 32, 1025, 32))
    return next((candidate for candidate in sizes if _accepts(network, backbone, candidate)), None)


def _accepts(network: nn.Module, backbone: Backbone, size: int) -> bool:
    try:
        with naming_errors(backbone):
            network(torch.empty(1, 3, size, size, device="meta"))
    except PosbenchError:
        return False
    return True
