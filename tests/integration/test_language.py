"""Rules for the source: how docstrings open, names of variables, and what a package's `__init__` may hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
MODULES = {
    path.relative_to(TOP).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("posbench", "benchmarks", "plugins", "tests")
    for path in sorted((TOP / folder).rglob("*.py"))
}
#: A docstring says what its object does or is; these words open an indirect question instead.
OPENING = re.compile(r"(What|Whether|How|Who|Whose|Of|Why)\b")
#: Variables are named after what they hold.
VAGUE = {"one", "found"}
#: Packages from which users import names, and the one that holds the command's entry point.
EXPORTING = {"posbench/__init__.py", "posbench/testing/__init__.py", "posbench/cli/__init__.py"}


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield all docstrings of a module, with the lines of their objects."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def variables(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names that a module binds as variables or parameters, with their lines."""
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name


def test_docstrings_open_with_what_their_object_does_or_is() -> None:
    assert [
        f"{path}:{line}: {text.splitlines()[0]}"
        for path, module in MODULES.items()
        for line, text in docstrings(module)
        if OPENING.match(text)
    ] == []


def test_variables_have_telling_names() -> None:
    assert [
        f"{path}:{line}: {name}"
        for path, module in MODULES.items()
        for line, name in variables(module)
        if name in VAGUE
    ] == []


def test_a_package_has_a_docstring_and_imports_nothing() -> None:
    packages = {path: module for path, module in MODULES.items() if re.fullmatch(r"posbench/.*__init__\.py", path)}
    assert [path for path, module in packages.items() if not ast.get_docstring(module)] == []
    assert [path for path, module in packages.items() if path not in EXPORTING and len(module.body) > 1] == []
