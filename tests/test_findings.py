"""What posbench is for: findings that must hold, and an exact null that must not be anything but null."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from scipy import stats

from tests.conftest import Ran

Scores = dict[tuple[str, str, str], dict[str, float]]


def scores(answer: Ran) -> Scores:
    """SPC and its standard error by backbone, padding and target."""
    assert answer.code == 0, answer.err
    found: Scores = {}
    for row in csv.DictReader(io.StringIO(answer.out)):
        half = (float(row["spc_hi"]) - float(row["spc_lo"])) / 2
        error = half / float(stats.t.ppf(0.975, int(row["n_test_photos"]) - 1))
        found[row["backbone"], row["padding"], row["target"]] = {"spc": float(row["spc"]), "error": error}
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("tf_efficientnet_lite0", "pretrained"),
        ("tf_efficientnet_lite0", "random"),
        ("resnet18", "random"),
        ("vgg16", "random"),
    ],
)
def test_circular_padding_on_a_torus_tells_nothing(network: str, weights: str, posbench: Callable[..., Ran]) -> None:
    # Network and images then look alike from everywhere: whatever is found is a leak.
    paddings = "circular" if network == "vgg16" else "zero,circular"
    answer = posbench(
        *("run", "--backbones", network, "--paddings", paddings, "--targets", "H,V,G"),
        *("--images", "leaves", "--test-count", "256", "--weights", weights, "--csv", "-"),
    )
    found = scores(answer)
    for target in ("H", "V", "G"):
        if "zero" in paddings:
            assert found[network, "zero", target]["spc"] > 0.8
        null = found[network, "circular", target]
        assert abs(null["spc"]) <= 0.1
        assert abs(null["spc"]) <= 4 * null["error"]
        assert null["error"] < 0.05  # or the line before would allow anything


@pytest.mark.long
def test_zero_padding_tells_position_on_photographs(posbench: Callable[..., Ran]) -> None:
    # The jobs of a bare run, less what the claim does not need.
    answer = posbench(
        *("run", "--backbones", "tf_efficientnet_lite0,none", "--paddings", "zero,circular"),
        *("--targets", "H,V,G", "--weights", "pretrained", "--csv", "-"),
    )
    found = scores(answer)
    for target in ("H", "V", "G"):
        zero, circular = (found["tf_efficientnet_lite0", padding, target]["spc"] for padding in ("zero", "circular"))
        assert zero > 0.4
        assert zero > circular
        assert abs(found["none", "none", target]["spc"]) <= 0.2
