"""Paths and links in the pages: what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [*TOP.glob("*.md"), *TOP.glob("docs/*.md"), *TOP.glob("plugins/*/README.md"), TOP / "benchmarks/README.md"]
)
#: Paths of the checkout within code, such as `posbench/bench/plan.py` or `posbench/builtin/{paddings,targets}.py`.
NAMED = re.compile(r"`((?:posbench|tests|benchmarks|plugins|docs)/[\w./{},-]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
#: Folders that a reader creates.
EXAMPLES = {"benchmarks/contributed/"}


def alternatives(path: str) -> list[str]:
    """Return the paths that `{a,b}` in a path stands for."""
    if match := re.search(r"\{(.*?)\}", path):
        return [path.replace(match[0], name) for name in match[1].split(",")]
    return [path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = [TOP / path for match in NAMED.findall(text) if match not in EXAMPLES for path in alternatives(match)]
    linked = [page.parent / path for path in LINK.findall(re.sub("```.*?```", "", text, flags=re.DOTALL))]
    assert [str(path) for path in [*named, *linked] if not path.exists()] == []
