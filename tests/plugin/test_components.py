"""Validation of the component records."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.plugin.components import Checkpoint, Images, Metric, Target
from tests.factories import never, target

FIRST = string.ascii_letters + string.digits
LATER = FIRST + "_.:-"


@given(st.tuples(st.sampled_from(FIRST), st.text(LATER)).map("".join))
def test_names_of_letters_digits_and_four_signs_are_taken(name: str) -> None:
    assert target(name).name == name


@given(st.text())
def test_every_other_name_is_refused(name: str) -> None:
    fits = name != "" and name[0] in FIRST and all(letter in LATER for letter in name)
    if fits:
        assert target(name).name == name
    else:
        with pytest.raises(ValueError, match="is no name for a component"):
            target(name)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "a,b", "é", "٣", "a/b", "a=b", None, 3])
def test_names_that_a_list_or_a_path_would_break_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a component"):
        target(name)


@pytest.mark.parametrize("version", ["", 1, None])
def test_a_version_is_a_text(version: str) -> None:
    with pytest.raises(ValueError, match="H: the version must be a non-empty string"):
        target("H", version)


def test_records_take_keywords_alone_and_do_not_change() -> None:
    with pytest.raises(TypeError):
        Target("H", "", "1", never)  # type: ignore[call-arg, arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        target("H").version = "2"  # type: ignore[misc]


def test_images_are_either_photographs_or_drawn() -> None:
    with pytest.raises(ValueError, match="both: give either photographs or draw"):
        Images(name="both", summary="", version="1", photographs=lambda: [Path("a.png")], draw=never)
    with pytest.raises(ValueError, match="neither: give either photographs or draw"):
        Images(name="neither", summary="", version="1")
    with pytest.raises(ValueError, match="is no name for a component"):
        Images(name="no name", summary="", version="1", draw=never)


def test_everything_offered_to_plugins_is_there() -> None:
    import posbench

    assert all(getattr(posbench, name) is not None for name in posbench.__all__)
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = posbench.nothing


def test_what_tables_show_can_be_shown() -> None:
    with pytest.raises(ValueError, match=r"H: the version must be printable, not '1\\x1b\[31m'"):
        Target(name="H", summary="", version="1\x1b[31m", draw=never)
    with pytest.raises(ValueError, match="leaves: the label must be a printable string"):
        Images(name="leaves", summary="", version="1", draw=never, label="\n")
    with pytest.raises(ValueError, match="the label of a checkpoint must be a printable string"):
        Checkpoint(label="\x07", find=lambda: None)
    with pytest.raises(ValueError, match="spc_lo: _lo and _hi end the columns of a metric's interval"):
        Metric(name="spc_lo", summary="", version="1", score=never)
