"""Options in a YAML file: plain values, each with the line where it is. No value is converted to an option's type."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from posbench.core.errors import UsageError, nearest
from posbench.core.files import read_regular_file

LARGEST_FILE = 2**20  # bytes: room for a hundred thousand names
#: Digits of the longest whole number that is converted; longer ones are in no option's range.
LONGEST_NUMBER = 20


def read_options(path: Path, names: Collection[str]) -> Iterator[tuple[str, object, str, str]]:
    """Yield the options in a YAML file, in its order.

    Args:
        path: of the file.
        names: the known options; a key may have `-` in place of `_`.

    Yields:
        An option's name; its value: text, a whole number, true or false, or a list of these; its key as written in the
        file; and the file and line, which a message about the option begins with.

    Raises:
        UsageError: if the file cannot be read, is not valid YAML, or has a key that is unknown or given twice, or a
            value that is not plain.
    """
    root = _compose(path)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode) or root.tag != "tag:yaml.org,2002:map":
        raise UsageError(f"{_place(path, root)}expected options, such as `paddings: [zero, circular]`")
    given: set[str] = set()
    for key, value in root.value:
        place = _place(path, key)
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{place}expected an option, such as paddings, for a key")
        name = key.value.replace("-", "_")
        if name not in names:
            raise UsageError(f"{place}unknown key {key.value!r}{nearest(name, names)}")
        if name in given:
            raise UsageError(f"{place}{key.value!r} is given twice: keep one")
        given.add(name)
        # Nested values, tags and aliases of lists are errors.
        flat = isinstance(value, yaml.SequenceNode) and value.tag == "tag:yaml.org,2002:seq"
        plain = [_scalar(item, path) for item in value.value] if flat else _scalar(value, path)
        yield name, plain, key.value, place


def _compose(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(read_regular_file(path, LARGEST_FILE).decode("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"config {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"config {str(path)!r} is not UTF-8 text: save it as UTF-8") from error
    except RecursionError as error:
        raise UsageError(f"{path}: not valid YAML: it nests too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{path}{line}: not valid YAML: {problem}") from error


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}: "


def _scalar(node: yaml.Node, path: Path) -> object:
    """Return a whole number, true or false, or text, which stands for all other types of YAML."""
    place, loader = _place(path, node), yaml.SafeLoader("")
    if not isinstance(node, yaml.ScalarNode) or node.tag != loader.resolve(  # type: ignore[no-untyped-call]
        yaml.ScalarNode, node.value, (node.style is None, node.style is not None)
    ):
        raise UsageError(f"{place}expected a plain value or a list of plain values")
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        raise UsageError(f"{place}a key without a value: give it one, or leave it out for the default")
    if kind == "int" and len(node.value) <= LONGEST_NUMBER:
        value: int = loader.construct_yaml_int(node)
        # YAML 1.1 reads 010 as 8 and 1:30 as 90.
        if str(value) != node.value:
            raise UsageError(f"{place}{node.value} is ambiguous: write {value}, or quote it")
        return value
    if kind == "bool":
        return bool(loader.construct_yaml_bool(node))
    return str(node.value)
