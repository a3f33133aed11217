"""What padding adds: by hand, and nothing on a torus that continues at its other edge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from posbench.builtin.metrics.ppp import ppp_patterns
from posbench.core.errors import Inapplicable
from posbench.network.extract import extract
from posbench.network.forward import ForwardPass
from posbench.plugin.components import Backbone, Images, Padding
from posbench.plugin.features import Features
from posbench.plugin.registry import load_registry
from tests.crops import train_test_crops

NAMES = ["a", "b", "c"]


def one_tap(values: list[list[float]]) -> Features:
    """A tap of one row and one channel, an image a line."""
    return Features((torch.tensor(values)[:, None, :, None],), 4)


def test_a_pattern_by_hand() -> None:
    """True features of spread 1; padding adds 2 and 0 on average, with some noise on the second cell."""
    true = one_tap([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    added = torch.tensor([[2.0, 1.0], [2.0, -1.0], [2.0, 0.0]])
    (found,) = ppp_patterns(Features((true.taps[0] + added[:, None, :, None] * _spread(true),), 4), true, NAMES)
    # In the second cell each photograph is held against the sign of the other two's sum: −1, 1, none.
    assert found.mae == pytest.approx({"a": (2 - 1) / 2, "b": (2 - 1) / 2, "c": 2 / 2})
    assert found.picture.tolist() == [pytest.approx([2.0, 0.0])]
    # The variances are 0 and 1; the pattern's squares sum to 4, of which noise explains a third of 1.
    assert found.snr == pytest.approx(4 - 1 / 3)


def _spread(features: Features) -> torch.Tensor:
    return features.taps[0].std(correction=0)


def test_crops_of_one_photograph_are_averaged_first() -> None:
    true = one_tap([[1.0], [-1.0], [1.0], [-1.0]])
    padded = one_tap([[4.0], [0.0], [2.0], [0.0]])
    (found,) = ppp_patterns(padded, true, ["a", "a", "b", "b"])
    assert found.mae == pytest.approx({"a": 2.0, "b": 1.0})


@given(st.floats(0.01, 100), st.floats(-5, 5))
def test_the_units_of_a_channel_do_not_matter(factor: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    padded, true = (torch.randn(3, 2, 2, 2, generator=generator) for _ in range(2))
    (first,) = ppp_patterns(Features((padded,), 4), Features((true,), 4), NAMES)
    (second,) = ppp_patterns(Features((padded * factor + shift,), 4), Features((true * factor + shift,), 4), NAMES)
    assert second.mae == pytest.approx(first.mae, rel=1e-3, abs=1e-4)
    assert second.snr == pytest.approx(first.snr, rel=1e-3, abs=1e-4)


def test_noise_alone_is_no_pattern() -> None:
    generator = torch.Generator().manual_seed(1)
    true, added = (torch.randn(40, 7, 7, 16, generator=generator) for _ in range(2))
    (found,) = ppp_patterns(Features((true + added,), 7), Features((true,), 7), [str(i) for i in range(40)])
    assert abs(sum(found.mae.values()) / 40) < 0.02
    assert found.snr < 0.01
    assert found.picture.mean() > 0.1  # what the mean absolute value itself makes of noise


def test_constant_channels_and_equal_features_say_nothing() -> None:
    features = Features((torch.ones(3, 2, 2, 2),), 2)
    (found,) = ppp_patterns(features, features, NAMES)
    assert (found.mae, found.snr) == (dict.fromkeys(NAMES, 0.0), 0.0)
    with pytest.raises(Inapplicable, match="there is one"):
        ppp_patterns(features, features, ["a"] * 3)


class Small(nn.Module):
    """Two convolutions, which see 3 pixels beyond the window."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.two = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.two(self.one(x).relu())]


def test_circular_padding_adds_nothing_on_a_torus_and_zeros_do() -> None:
    torch.manual_seed(0)
    backbone = Backbone(name="small", summary="", version="1", build=Small, taps=1)
    network, registry = backbone.build().eval(), load_registry()
    leaves = registry.get(Images, "leaves")
    _, test = train_test_crops(leaves, leaves, 1, 6, 64, surrounded=True)
    of = {
        name: extract(ForwardPass(network, backbone, registry.get(Padding, name)), test, grid=32)
        for name in ("zero", "circular", "surround")
    }
    (none,), (some,) = (ppp_patterns(of[name], of["surround"], test.photographs) for name in ("circular", "zero"))
    assert max(map(abs, none.mae.values())) < 1e-5
    assert none.picture.max() < 1e-5
    assert some.snr > 0.1
    assert some.picture[0].mean() > 10 * some.picture[8:-8, 8:-8].mean()
