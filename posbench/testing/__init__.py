"""Contract checks that plugin authors run on their own components."""

from posbench.testing.backbones import check_backbone, check_readout
from posbench.testing.controls import check_control
from posbench.testing.executors import check_executor
from posbench.testing.paddings import check_padding
from posbench.testing.sources import check_images, check_metric, check_target

__all__ = [
    "check_backbone",
    "check_control",
    "check_executor",
    "check_images",
    "check_metric",
    "check_padding",
    "check_readout",
    "check_target",
]
