"""Findings that must hold: position under zero padding, and none under circular padding on leaves."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from scipy import stats

from benchmarks.null_jobs import simulate, simulate_cross_fitted
from tests.conftest import Ran

Rows = dict[tuple[str, str, str], dict[str, str]]


def rows(answer: Ran) -> Rows:
    """Return the rows of a CSV by backbone, padding and target."""
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
    # On leaves, circular padding makes all positions alike, so any score there is a leak.
    answer = posbench(
        *("run", "--backbones", network, "--paddings", "zero,circular", "--weights", weights),
        *("--image-size", image_size, "--train-count", train_count),
        *("--images", "leaves", "--test-count", "384", "--csv", "-"),
    )
    cells = rows(answer)
    for target in ("H", "V", "G", "HS", "VS"):
        zero, null = (cells[network, padding, target] for padding in ("zero", "circular"))
        assert (zero["verdict"], null["verdict"]) == ("encodes position", "does not")
        assert float(zero["spc"]) > (0.4 if "S" in target else 0.8)
        half = (float(null["spc_hi"]) - float(null["spc_lo"])) / 2
        error = half / float(stats.t.ppf(0.975, int(null["n_test_photos"]) - 1))
        assert abs(float(null["spc"])) <= 4 * error
        assert error < 0.03  # otherwise the line before would allow any score


@pytest.mark.long
def test_zero_padding_tells_position_on_photographs(posbench: Callable[..., Ran]) -> None:
    # The jobs of a bare `posbench run` that this claim needs.
    answer = posbench(
        *("run", "--backbones", "tf_efficientnet_lite0,none", "--paddings", "zero,circular"),
        *("--targets", "H,V,G", "--weights", "pretrained", "--csv", "-"),
    )
    cells = rows(answer)
    for target in ("H", "V", "G"):
        zero, circular = (
            float(cells["tf_efficientnet_lite0", padding, target]["spc"]) for padding in ("zero", "circular")
        )
        assert zero > 0.4
        assert zero > circular
        assert abs(float(cells["none", "none", target]["spc"])) <= 0.2


@pytest.mark.long
def test_networks_that_encode_nothing_are_seldom_said_to() -> None:
    # `python benchmarks/null_jobs.py` simulates more jobs.
    plain = simulate(jobs=300, photographs=15)
    assert plain.verdicts["encodes position"] <= 0.01
    assert 0.92 <= plain.coverage <= 0.98
    cross_fitted = simulate_cross_fitted(jobs=300, photographs=15, share=0.5)
    assert cross_fitted.verdicts["encodes position"] <= 0.01
    assert cross_fitted.coverage >= 0.93 > cross_fitted.uncorrected_coverage
