"""ASCII replacements, escapes and Unicode support."""

from __future__ import annotations

import pytest

from posbench.bench.field_types import replace_control_characters
from posbench.core.errors import one_line
from posbench.core.text import ascii_form, has_unicode, printable, replace_unprintable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.68 ±0.14 ≈", "0.68 +-0.14 ~"),
        ("photos → black, 3×3, A − B, …", "photos -> black, 3x3, A - B, ..."),
        ("██▌", "###"),
        ("folder:été漢", r"folder:\xe9t\xe9\u6f22"),
        ("plain", "plain"),
    ],
)
def test_forms_in_ascii(text: str, shown: str) -> None:
    assert ascii_form(text) == shown


def test_what_a_terminal_would_obey_becomes_its_escape() -> None:
    assert printable("a\x1b[31mb\x9b\x07\r\nc\td\udcff") == "a\\x1b[31mb\\x9b\\x07\\r\nc d\\udcff"
    assert printable("0.1 ±0.2 漢") == "0.1 ±0.2 漢"


def test_one_rule_says_what_that_is() -> None:
    odd = "a\x1bb\x9bc\udcffd\u202ee\x07"
    assert (
        replace_control_characters(odd)
        == one_line(ValueError(odd)) + " "
        == replace_unprintable(odd, lambda _: " ")
        == "a b c d e "
    )
    assert printable(odd) == replace_unprintable(odd, printable) == "a\\x1bb\\x9bc\\udcffd\\u202ee\\x07"


@pytest.mark.parametrize(
    ("encoding", "environment", "expected"),
    [
        ("utf-8", {}, True),
        ("UTF-8", {"LANG": "de_DE.UTF-8"}, True),
        ("ascii", {"LANG": "de_DE.UTF-8"}, False),
        ("cp1252", {}, False),
        ("utf-8", {"LANG": "C"}, False),
        ("utf-8", {"LANG": "C.UTF-8"}, True),
        ("utf-8", {"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, False),
        ("utf-8", {"LC_ALL": "de_DE.UTF-8", "LANG": "C"}, True),
        ("utf-8", {"LC_CTYPE": "de_DE.UTF-8", "LANG": "C"}, True),
    ],
)
def test_unicode_is_for_streams_and_locales_that_have_it(
    encoding: str, environment: dict[str, str], expected: bool
) -> None:
    assert has_unicode(encoding, environment) is expected
