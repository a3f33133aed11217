"""Training and test crops of two sources, as tests need them together."""

from __future__ import annotations

from posbench.data.crops import TEST, TRAIN, Crops, load_crops, split_photographs
from posbench.plugin.components import Images


def train_test_crops(
    train: Images, test: Images, n_train: int, n_test: int, size: int, *, surrounded: bool = False
) -> tuple[Crops, Crops]:
    """Return the training and the test crops, from different photographs."""
    train_photographs, test_photographs = split_photographs(train, test, n_test)
    return (
        load_crops(train, train_photographs, TRAIN, n_train, size, surrounded=surrounded),
        load_crops(test, test_photographs, TEST, n_test, size, surrounded=surrounded),
    )
