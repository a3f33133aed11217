"""The record of a control: which cells it adds, what these change, and how their results are compared and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from posbench.plugin.components import NAME, Backbone, Component, Images, Padding, Readout, Target

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from posbench.plugin.features import Features

#: Selects every control, in place of names.
ALL_CONTROLS = "all"
#: What the rows of a control may be evidence of in a verdict.
EVIDENCE = ("", "null", "rotation")
#: Positions that a readout can be fitted without; see `posbench.Training.held_out`.
HELD_OUT = ("", "columns", "quadrant")

#: Takes the features of n images, the target patterns float32 [targets, 256, 256], the side of the readout's maps and
#: whether these are test images; returns features of the same images on the same grid.
FeatureChange: TypeAlias = "Callable[[Features, torch.Tensor, int, bool], Features]"


@dataclass(frozen=True, kw_only=True)
class CheckedCell:
    """A cell of the plan that a control may check.

    Attributes:
        backbone: the network.
        weights: the label of its weights, as in the column `weights`.
        random_seed: the seed of random weights; None for trained ones.
        padding: the padding strategy.
        train, test: the sources of training and test images.
        n_train, n_test: how many crops of each.
        image_size: the side of a crop, in pixels.
        grid: the side of the grid that taps are aligned to; the readout's maps have the side `readout.grid(grid)`.
        target: the pattern to predict.
        readout: the model that predicts it.
        taps: `all`, or the numbers of taps joined by `+`, counted from 1.
        seed: of a stochastic readout; None for a deterministic one.
        score_at: `grid` or `image`.
    """

    backbone: Backbone
    weights: str
    random_seed: int | None
    padding: Padding | None
    train: Images
    test: Images
    n_train: int
    n_test: int
    image_size: int
    grid: int
    target: Target
    readout: Readout
    taps: str
    seed: int | None
    score_at: str


@dataclass(frozen=True, kw_only=True)
class ControlContext:
    """Inputs of controls that no single cell has.

    Attributes:
        null_images: images in which nothing but a border indicates position.
        photographs: photographs for the controls of cells on null images; None if the run has no such cells.
        seeds: of the run, `--seeds`.
    """

    null_images: Images
    photographs: Images | None
    seeds: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The differences between a cell and the cell that it checks. What is left out is the same in both.

    Attributes:
        name: the value of the column `control`: the control's name, alone or followed by a dash and more.
        no_network: read the target from red, green and blue alone, without a network or padding, from all taps.
        random_weights: the seed of random weights to give the network; a stochastic readout takes the same seed.
        train, test: sources of training and test images.
        rotate_test: test on the same images rotated by 180 degrees.
        n_test: how many test crops.
        test_size: the side of a test crop, in pixels.
        score_at: `grid` or `image`.
        target: draws the pattern to predict instead, as `Target.draw` does. Its name is that of the cell's target
            followed by the control's `target_suffix`.
        features: changes the features before the readout is fitted, and before it predicts. Takes the features of n
            images, the target patterns float32 [targets, 256, 256], the side of the readout's maps, and whether these
            are test images; returns features of the same images on the same grid.
        held_out: the positions that the readout is not fitted on, and that alone are scored: `columns` (every other
            one) or `quadrant` (the one at the bottom right); see `Training.held_out`.
        crop: score the part of a larger test image's map that has a training image's size, from the top left.

    Raises:
        ValueError: if the name does not match that of a component, a number is not a whole one or too small, held_out
            or score_at is not one of these, or no_network is combined with random_weights.
    """

    name: str
    no_network: bool = False
    random_weights: int | None = None
    train: Images | None = None
    test: Images | None = None
    rotate_test: bool = False
    n_test: int | None = None
    test_size: int | None = None
    score_at: str | None = None
    target: Callable[[int], NDArray[np.floating[Any]]] | None = None
    features: FeatureChange | None = None
    held_out: str = ""
    crop: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.match(self.name):
            raise ValueError(f"{self.name!r} is no name for a check: it must match {NAME.pattern[:-2]}")
        if self.held_out not in HELD_OUT:
            raise ValueError(f"{self.name}: held_out is {self.held_out!r}; it must be columns, quadrant or empty")
        if self.score_at not in (None, "grid", "image"):
            raise ValueError(f"{self.name}: score_at is {self.score_at!r}; it must be grid, image or None")
        for field, least in (("n_test", 1), ("test_size", 1), ("random_weights", 0)):
            value = getattr(self, field)
            if value is not None and (type(value) is not int or value < least):  # bool is a subclass of int
                raise ValueError(f"{self.name}: {field} is {value!r}; it must be None, or an integer ≥ {least}")
        if self.no_network and self.random_weights is not None:
            raise ValueError(f"{self.name}: random_weights needs a network, and no_network takes it away")

    @property
    def separate_fit(self) -> bool:
        """True if the readout is not fitted together with that of the checked cell.

        A target of its own separates it too, so that plain scores are the same to the last bit with and without
        controls.
        """
        return self.target is not None or self.features is not None or bool(self.held_out)


@dataclass(frozen=True, kw_only=True)
class Control(Component):
    """A control: for each cell of a plan, the cells that check it, and how their results are read.

    The identity of a check holds its name and the id of the checked cell. From a version other than "1" on it also
    holds the control's version, so that a new version computes its checks again.

    Attributes:
        checks: takes the `posbench.CheckedCell` and the `posbench.ControlContext`, and returns the cell's checks; none
            if the cell would be its own check. It is called while the plan is made, so it must be quick, import no
            torch, and depend on nothing but its arguments. Cells without a network are not checked.
        target_suffix: added to the name of the target by checks that have a target of their own.
        difference: on boards of controls, the label of a line with the cell's score less that of its check; empty for
            no such line.
        label_images: on boards of controls, name the sources of images of each check.
        measured: measure metrics of a job (`Metric.of_job`) on its checks too.
        evidence: the part of a verdict that its checks are evidence for: `null` (position without any other cue),
            `rotation` (content against border), or none. Only the check that has the control's own name is evidence.
        default_seeds: the seeds of random networks that its checks use unless the run has at least as many.

    Raises:
        ValueError: if the name is `all`, or the evidence is none of these.
    """

    kind: ClassVar[str] = "control"

    checks: Callable[[CheckedCell, ControlContext], Iterable[Check]]
    target_suffix: str = ""
    difference: str = ""
    label_images: bool = False
    measured: bool = False
    evidence: str = ""
    default_seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "default_seeds", tuple(self.default_seeds))  # an author may write a list
        if self.name == ALL_CONTROLS:
            raise ValueError(f"a control cannot be called {ALL_CONTROLS}: that selects every control")
        if self.evidence not in EVIDENCE:
            raise ValueError(f"{self.name}: evidence is {self.evidence!r}; it must be null, rotation or empty")

    def owns(self, check: str) -> bool:
        """Return True if a check may have this name: the control's own, alone or followed by a dash and more."""
        return check == self.name or check.startswith(f"{self.name}-")


class ControlCatalogue:
    """Controls, found by the names of their checks as results store them; needs no torch.

    Args:
        controls: the controls.
        null_images: labels of image sources in which nothing but a border indicates position.
    """

    def __init__(self, controls: Iterable[Control], null_images: Iterable[str] = ()) -> None:
        self._controls = {control.name: control for control in controls}
        self.null_images = frozenset(null_images)

    def __iter__(self) -> Iterator[Control]:
        return iter(self._controls.values())

    def __len__(self) -> int:
        return len(self._controls)

    def of_check(self, check: str | None) -> Control | None:
        """Return the control that a check belongs to, or None for a plain cell or a control that is not installed.

        Of several, the one with the longest name: a control `size` does not own the checks of a control `size-large`.
        """
        owners = [control for control in self if check and control.owns(check)]
        return max(owners, key=lambda control: len(control.name), default=None)
