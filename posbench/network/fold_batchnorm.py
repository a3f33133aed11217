"""Fusion of BatchNorm layers into the convolutions before them.

BatchNorm in evaluation mode scales and shifts each channel, which the weights and bias of a convolution can do as well.
As a layer of its own it reads and writes the whole map, which takes a quarter of a small network's time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from posbench.network.tracing import LayerTracker


def _norms() -> tuple[type[nn.Module], ...]:
    """Return the layers that can be fused: BatchNorm, and timm's BatchNorm with dropout and activation.

    timm is slow to import; a network can have its layers only if it is already imported.
    """
    layers = sys.modules.get("timm.layers")
    return (nn.BatchNorm2d, layers.BatchNormAct2d) if layers else (nn.BatchNorm2d,)


class _Pairs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that records which normalisations of a network are the only readers of a convolution's output."""

    def __init__(self, network: nn.Module, tracker: LayerTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._modules = dict(network.named_modules())
        self._tracker = tracker
        self._norms = _norms()
        self._calls = Counter[str]()
        self._readers = Counter[int]()
        #: The layer of each convolution output, and the input of each normalisation layer; tensors by their id.
        self._convolution_of: dict[int, str] = {}
        self._input_of: dict[str, int] = {}
        #: References to all tensors, so that no id is used twice.
        self._references: list[object] = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self._references += [args, output]
        self._readers.update({id(value) for value in tree_leaves((args, kwargs)) if torch.is_tensor(value)})
        layer = self._tracker.layer
        module = self._modules[layer]
        if func is torch.ops.aten.convolution.default and isinstance(module, nn.Conv2d):
            self._calls[layer] += 1
            # Some layers compute the weights of their convolution.
            if args[1] is module.weight and args[2] is module.bias:
                self._convolution_of[id(output)] = layer
        elif "batch_norm" in func.__name__ and type(module) in self._norms:
            self._calls[layer] += 1
            self._input_of[layer] = id(args[0])
        return output

    def fusible(self, taps: Iterable[torch.Tensor]) -> list[tuple[str, str]]:
        """Return the pairs of layers (convolution, normalisation) that can be fused; taps count as readers, too."""
        self._readers.update(map(id, taps))
        outputs = self._convolution_of
        shared = Counter(id(self._modules[layer].weight) for layer in outputs.values())
        pairs = [(outputs[value], norm) for norm, value in self._input_of.items() if value in outputs]
        return [
            (convolution, norm)
            for convolution, norm in pairs
            if self._calls[convolution] == self._calls[norm] == 1
            and sum(self._readers[value] for value, layer in outputs.items() if layer == convolution) == 1
            and shared[id(self._modules[convolution].weight)] == 1
            and not any(
                self._modules[layer]._forward_hooks or self._modules[layer]._forward_pre_hooks
                for layer in (convolution, norm)
            )
        ]


@torch.no_grad()
def fold_norms(network: nn.Module, image: torch.Tensor) -> None:
    """Fuse normalisations into convolutions, in place; outputs change by rounding alone.

    A pair is fused only if the normalisation is the only reader of the convolution's output and both run once. Pairs
    with computed or shared weights, with hooks or with batch statistics are left alone.

    Args:
        network: in evaluation mode, on the device of the image. It runs once.
        image: float32 [1, 3, height, width].
    """
    norms = _norms()
    if not any(type(module) in norms for module in network.modules()):
        return
    with LayerTracker(network) as tracker, _Pairs(network, tracker) as pairs:
        taps = network(image)
    for convolution_name, norm_name in pairs.fusible(taps):
        convolution, norm = network.get_submodule(convolution_name), network.get_submodule(norm_name)
        assert isinstance(convolution, nn.Conv2d)  # noqa: S101  for the type checker: `_Pairs` records no other
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
        if norm.running_mean is None or norm.running_var is None:
            continue
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps),
            *(norm.weight, norm.bias),
        )
        plain = type(norm) is nn.BatchNorm2d
        rest = nn.Identity() if plain else nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
        network.set_submodule(norm_name, rest)
