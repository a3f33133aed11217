"""The padded operations of a network, derived from shapes alone."""

from __future__ import annotations

import torch
from torch import nn

from posbench.core.errors import Inapplicable, PosbenchError, UsageError, one_line
from posbench.network.build import untrained
from posbench.network.padding import PaddedOperation, padded_operations
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import isolated_state

#: The largest difference, in pixels, of the image sizes that `even_sizes` tries.
MAX_DIFFERENCE = 64


def operations(backbone: Backbone, image_size: int) -> list[PaddedOperation]:
    """Return every padded operation in call order, for an image of `image_size` pixels a side.

    Raises:
        PosbenchError: if a padded operation cannot be given another padding.
        ComponentError: if the backbone builds no network.
        UsageError: if the network cannot take images of this size.
    """
    return _operations(_on_meta_device(backbone), backbone, image_size)


def even_sizes(backbone: Backbone, image_size: int) -> list[int]:
    """Return the nearest image sizes, below and above, at which every operation's padding is even, if there are any."""
    network = _on_meta_device(backbone)

    def even(size: int) -> bool:
        try:
            return not any(operation.uneven for operation in _operations(network, backbone, size))
        except UsageError:
            return False  # the network takes no image of this size

    smaller = range(image_size - 1, max(image_size - MAX_DIFFERENCE, 8) - 1, -1)
    larger = range(image_size + 1, image_size + MAX_DIFFERENCE + 1)
    below, above = (next(filter(even, sizes), None) for sizes in (smaller, larger))
    return [size for size in (below, above) if size is not None]


def _on_meta_device(backbone: Backbone) -> nn.Module:
    with isolated_state(), torch.device("meta"):
        return untrained(backbone)


def _operations(network: nn.Module, backbone: Backbone, size: int) -> list[PaddedOperation]:
    try:
        with isolated_state():
            return padded_operations(network, torch.empty(1, 3, size, size, device="meta"))
    except Inapplicable as error:
        raise PosbenchError(f"backbone {backbone.name!r}: {error}") from error
    # Networks raise many kinds of errors for an image size that they cannot take.
    except (Exception, SystemExit) as error:
        raise UsageError(f"backbone {backbone.name!r} cannot take an image of {size} px: {one_line(error)}") from error
