"""The padded operations of known networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from posbench.core.errors import PosbenchError, UsageError
from posbench.network.audit import even_sizes, operations
from posbench.network.padding import padded_operations
from posbench.plugin.components import Backbone
from posbench.plugin.registry import load_registry
from tests.conftest import Ran


def backbone(name: str) -> Backbone:
    return load_registry().get(Backbone, name)


def test_a_resnet_is_uneven_at_224_in_all_five_downsamplings_and_even_at_225() -> None:
    # Mind the Pad (ICLR 2021), section 2.
    uneven = [operation for operation in operations(backbone("resnet18"), 224) if operation.uneven]
    assert [operation.layer for operation in uneven] == [
        "conv1", "maxpool", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1",
    ]  # fmt: skip
    assert all(operation.stride == (2, 2) for operation in uneven)
    assert not any(operation.uneven for operation in operations(backbone("resnet18"), 225))
    assert 225 in even_sizes(backbone("resnet18"), 224)


def test_vgg_pads_its_thirteen_convolutions_by_one_cell() -> None:
    padded = operations(backbone("vgg16"), 224)
    assert [operation.size for operation in padded] == [
        (s, s) for s, n in zip((224, 112, 56, 28, 14), (2, 2, 3, 3, 3), strict=True) for _ in range(n)
    ]
    assert {(o.operation, o.kernel, o.stride, o.sides, o.uneven) for o in padded} == {
        ("convolution", (3, 3), (1, 1), (1, 1, 1, 1), False)
    }


def test_a_pad_belongs_to_the_operation_that_follows() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.max_pool2d(self.conv(F.pad(x, (0, 1, 0, 1))), 3, 1, 1)

    of_conv, of_pool = padded_operations(Same(), torch.zeros(1, 3, 8, 8))
    assert (of_conv.layer, of_conv.kernel, of_conv.stride, of_conv.sides) == ("conv", (3, 3), (2, 2), (0, 1, 0, 1))
    assert of_conv.uneven
    assert (of_pool.layer, of_pool.operation, of_pool.uneven) == ("", "max-pooling", False)


def test_what_would_escape_a_strategy_fails_loudly(posbench: Callable[..., Ran]) -> None:
    class Unfolds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.unfold(x, 3, padding=1)

    with pytest.raises(PosbenchError, match="cannot reach im2col"):
        operations(Backbone(name="unfolds", summary="", version="1", build=Unfolds, taps=1), 32)
    answer = posbench("audit", "volo_d1_224")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        "posbench: backbone 'volo_d1_224': padding cannot reach im2col.default in network.0.0.attn.unfold "
        "and 7 more operations\n"
    )


def test_a_network_that_takes_no_such_image_says_so() -> None:
    with pytest.raises(UsageError, match="'vgg16' cannot take an image of 8 px"):
        operations(backbone("vgg16"), 8)


def test_the_command_shows_each_operation(posbench: Callable[..., Ran]) -> None:
    answer = posbench("audit", "resnet18", "--image-size", "64")
    assert answer.code == 0
    assert "conv1           convolution  7×7     2×2     3, 3, 3, 3" in answer.out
    assert "18 padded operations at 64 px, 5 of them uneven" in answer.out
    assert "33 px and 65 px" in answer.out


def test_a_size_that_a_network_refuses_without_a_word_is_one_line(posbench: Callable[..., Ran]) -> None:
    answer = posbench("audit", "halonet26t")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "cannot take an image of 224 px" in answer.err
