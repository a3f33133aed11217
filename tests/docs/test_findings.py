"""What posbench is for: findings that must hold, and an exact null that must not be anything but null."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from scipy import stats

from benchmarks.null_jobs import crossed, simulate
from tests.conftest import Ran

Rows = dict[tuple[str, str, str], dict[str, str]]


def rows(answer: Ran) -> Rows:
    """Rows by backbone, padding and target."""
    assert answer.code == 0, answer.err
    read = csv.DictReader(io.StringIO(answer.out))
    return {(row["backbone"], row["padding"], row["target"]): row for row in read}


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "weights", "image_size", "train_count"),
    [
        ("tf_efficientnet_lite0", "pretrained", "224", "256"),
        ("tf_efficientnet_lite0", "random", "128", "256"),
        ("resnet18", "random", "128", "256"),
        ("vgg16", "random", "96", "128"),
    ],
)
def test_the_verdict_is_position_under_zeros_and_nothing_on_a_torus(
    network: str, weights: str, image_size: str, train_count: str, posbench: Callable[..., Ran]
) -> None:
    # Under circular padding network and images look alike from everywhere: whatever is found is a leak.
    answer = posbench(
        *("run", "--backbones", network, "--paddings", "zero,circular", "--weights", weights),
        *("--image-size", image_size, "--train-count", train_count),
        *("--images", "leaves", "--test-count", "384", "--csv", "-"),
    )
    found = rows(answer)
    for target in ("H", "V", "G", "HS", "VS"):
        zero, null = (found[network, padding, target] for padding in ("zero", "circular"))
        assert (zero["verdict"], null["verdict"]) == ("encodes position", "does not")
        assert float(zero["spc"]) > (0.4 if "S" in target else 0.8)
        half = (float(null["spc_hi"]) - float(null["spc_lo"])) / 2
        error = half / float(stats.t.ppf(0.975, int(null["n_test_photos"]) - 1))
        assert abs(float(null["spc"])) <= 4 * error
        assert error < 0.03  # or the line before would allow anything


@pytest.mark.long
def test_zero_padding_tells_position_on_photographs(posbench: Callable[..., Ran]) -> None:
    # The jobs of a bare run, less what the claim does not need.
    answer = posbench(
        *("run", "--backbones", "tf_efficientnet_lite0,none", "--paddings", "zero,circular"),
        *("--targets", "H,V,G", "--weights", "pretrained", "--csv", "-"),
    )
    found = rows(answer)
    for target in ("H", "V", "G"):
        zero, circular = (float(found["tf_efficientnet_lite0", it, target]["spc"]) for it in ("zero", "circular"))
        assert zero > 0.4
        assert zero > circular
        assert abs(float(found["none", "none", target]["spc"])) <= 0.2


@pytest.mark.long
def test_networks_that_encode_nothing_are_seldom_said_to() -> None:
    # At full length this is `python benchmarks/null_jobs.py`.
    one = simulate(jobs=300, photographs=15)
    assert one.verdicts["encodes position"] <= 0.01
    assert 0.92 <= one.coverage <= 0.98
    both = crossed(jobs=300, photographs=15, share=0.5)
    assert both.verdicts["encodes position"] <= 0.01
    assert both.coverage >= 0.93 > both.plain
