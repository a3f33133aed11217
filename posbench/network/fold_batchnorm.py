"""Folds normalisations by fixed statistics into the convolutions before them: the same function in fewer passes.

BatchNorm in evaluation mode is a scale and a shift of each channel, and so is what a convolution's weights and bias can
do by themselves. By itself it takes as long as reading and writing the whole map: a quarter of a small network's time.
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

from posbench.network.tracing import Watch


def _norms() -> tuple[type[nn.Module], ...]:
    """What is known to be a normalisation of channels and, in timm's case, a drop and an activation, and nothing else.

    Importing timm takes longer than torch does, and a network has timm's layers only if somebody has imported it.
    """
    layers = sys.modules.get("timm.layers")
    return (nn.BatchNorm2d, layers.BatchNormAct2d) if layers else (nn.BatchNorm2d,)


class _Pairs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which normalisation is all that reads a convolution's result, while a network runs."""

    def __init__(self, network: nn.Module, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._modules = dict(network.named_modules())
        self._watch = watch
        self._norms = _norms()
        self._calls = Counter[str]()
        self._readers = Counter[int]()
        #: By what the convolution made: its layer; and by that of the normalisation: what it read.
        self._made: dict[int, str] = {}
        self._read: dict[str, int] = {}
        #: Kept, so that no two have one id.
        self._values: list[object] = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self._values += [args, made]
        self._readers.update({id(value) for value in tree_leaves((args, kwargs)) if torch.is_tensor(value)})
        layer = self._watch.layer
        module = self._modules[layer]
        if func is torch.ops.aten.convolution.default and isinstance(module, nn.Conv2d):
            self._calls[layer] += 1
            # Some layers compute the weights that they convolve with.
            if args[1] is module.weight and args[2] is module.bias:
                self._made[id(made)] = layer
        elif "batch_norm" in func.__name__ and type(module) in self._norms:
            self._calls[layer] += 1
            self._read[layer] = id(args[0])
        return made

    def found(self, taps: Iterable[torch.Tensor]) -> list[tuple[str, str]]:
        """The layers of convolutions and of the normalisations that alone read their results."""
        self._readers.update(map(id, taps))
        shared = Counter(id(self._modules[layer].weight) for layer in self._made.values())
        pairs = [(self._made[value], norm) for norm, value in self._read.items() if value in self._made]
        return [
            (convolution, norm)
            for convolution, norm in pairs
            if self._calls[convolution] == self._calls[norm] == 1
            and sum(self._readers[value] for value, layer in self._made.items() if layer == convolution) == 1
            and shared[id(self._modules[convolution].weight)] == 1
            and not any(_hooked(self._modules[layer]) for layer in (convolution, norm))
        ]


def _hooked(module: nn.Module) -> bool:
    """Whether somebody listens to it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@torch.no_grad()
def fold_norms(network: nn.Module, image: torch.Tensor) -> None:
    """Fold what can be folded, in place; the network's results stay what they were up to rounding.

    A pair is folded only if the normalisation is all that reads the convolution's result, both run once, and nothing
    else has a hand in them: computed or shared weights, hooks, statistics of the batch.

    Args:
        network: in evaluation mode, on the device of the image. It runs once.
        image: float32 [1, 3, height, width], as the network takes it.
    """
    norms = _norms()
    if not any(type(module) in norms for module in network.modules()):
        return
    with Watch(network) as watch, _Pairs(network, watch) as pairs:
        taps = network(image)
    for layer, normalising in pairs.found(taps):
        convolution, norm = network.get_submodule(layer), network.get_submodule(normalising)
        assert isinstance(convolution, nn.Conv2d)  # noqa: S101  for the type checker: `_Pairs` noted no other
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
        if norm.running_mean is None or norm.running_var is None:
            continue
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps),
            *(norm.weight, norm.bias),
        )
        rest = (
            nn.Identity()
            if type(norm) is nn.BatchNorm2d
            else nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
        )
        network.set_submodule(normalising, rest)
