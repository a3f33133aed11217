"""What a network pads, operation by operation, found from shapes alone."""

from __future__ import annotations

import torch
from torch import nn

from posbench.core.errors import Inapplicable, PosbenchError, UsageError, one_line
from posbench.network.build import untrained
from posbench.network.padding import PaddedOperation, padded_operations
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import isolated_state

#: How many pixels up and down to look for an image size at which all padding is even.
REACH = 64


def operations(backbone: Backbone, image_size: int) -> list[PaddedOperation]:
    """Every padded operation in the order of its call, for an image of `image_size` pixels a side.

    Raises:
        PosbenchError: if a padded operation would escape a strategy.
        ComponentError: if the backbone builds no network.
        UsageError: if the network cannot take images of this size.
    """
    return _operations(_without_memory(backbone), backbone, image_size)


def even_sizes(backbone: Backbone, image_size: int) -> list[int]:
    """The nearest sizes below and above at which every operation's padding is even; empty if none is within reach."""
    network = _without_memory(backbone)

    def even(size: int) -> bool:
        try:
            return not any(operation.uneven for operation in _operations(network, backbone, size))
        except UsageError:
            return False  # the network takes no image of this size

    below = next((size for size in range(image_size - 1, max(image_size - REACH, 8) - 1, -1) if even(size)), None)
    above = next((size for size in range(image_size + 1, image_size + REACH + 1) if even(size)), None)
    return [size for size in (below, above) if size is not None]


def _without_memory(backbone: Backbone) -> nn.Module:
    with isolated_state(), torch.device("meta"):
        return untrained(backbone)


def _operations(network: nn.Module, backbone: Backbone, size: int) -> list[PaddedOperation]:
    try:
        with isolated_state():
            return padded_operations(network, torch.empty(1, 3, size, size, device="meta"))
    except Inapplicable as error:
        raise PosbenchError(f"backbone {backbone.name!r}: {error}") from error
    # Networks say in ways of their own that they take no image of this size.
    except (Exception, SystemExit) as error:
        raise UsageError(f"backbone {backbone.name!r} cannot take an image of {size} px: {one_line(error)}") from error
