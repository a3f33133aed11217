"""Plugins that fail, misspell, repeat or overreach cost only their own components."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from posbench.bench.resolve import find_images
from posbench.core.errors import PosbenchError, UsageError
from posbench.plugin.components import Backbone, Padding, Target
from posbench.plugin.registry import load_registry
from tests.conftest import Ran

ONE_PADDING = """
from posbench import Padding, hookimpl

@hookimpl
def posbench_paddings():
    return [Padding(name="{name}", summary="{summary}", version="1", pad=lambda x, sides: x)]
"""
BAD = {
    "raises at import": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits at import": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "needs what is not installed": ("import no_such_package", "ModuleNotFoundError"),
    "is no Python": ("def broken(:", "SyntaxError"),
    "misspells a hook": (ONE_PADDING.replace("posbench_paddings", "posbench_padings"), "posbench_padings"),
    "gives a hook an argument": (ONE_PADDING.replace("_paddings()", "_paddings(device)"), "device"),
    "raises in a hook": (
        "from posbench import hookimpl\n@hookimpl\ndef posbench_paddings():\n    raise KeyError('lost')",
        "KeyError: 'lost'",
    ),
    "exits in a hook": (
        "from posbench import hookimpl\n@hookimpl\ndef posbench_paddings():\n    raise SystemExit('bye')",
        "SystemExit: bye",
    ),
    "raises half-way through a hook": (
        ONE_PADDING.replace("    return [", "    yield ").replace("x)]", "x)\n    raise OSError('gone')"),
        "OSError: gone",
    ),
    "returns a record of another kind": (
        ONE_PADDING.replace("posbench_paddings", "posbench_targets"),
        "which is no Target",
    ),
    "returns no record": (
        "from posbench import hookimpl\n@hookimpl\ndef posbench_paddings():\n    return ['x']",
        "'x'",
    ),
    "returns nothing": (
        "from posbench import hookimpl\n@hookimpl\ndef posbench_paddings():\n    pass",
        "TypeError: 'NoneType'",
    ),
    "has a name that cannot be typed": (ONE_PADDING.replace("{name}", "two words"), "is no name for a component"),
}


def unwrapped(text: str) -> str:
    """A table's text without the breaks that its width makes."""
    return "".join(text.split())


@pytest.mark.parametrize("fault", BAD)
def test_a_plugin_that(fault: str, install: Callable[..., None], posbench: Callable[..., Ran]) -> None:
    source, reason = BAD[fault]
    install("posbench-bad", source.replace("{name}", "bad").replace("{summary}", ""))
    install("posbench-good", ONE_PADDING.format(name="good", summary=""))
    registry = load_registry()
    [plugin] = [plugin for plugin in registry.plugins if plugin.distribution == "posbench-bad"]
    assert reason in (plugin.error or "")
    assert "good" in registry.names("padding")
    assert "bad" not in registry.names("padding")
    listed = posbench("list", "paddings")
    assert listed.code == 0
    assert "good" in listed.out
    assert "posbench-bad 1.0 is left out" in listed.err
    assert "Traceback" not in listed.err


def test_no_bad_plugin_takes_a_command_down(install: Callable[..., None], posbench: Callable[..., Ran]) -> None:
    for number, (source, _) in enumerate(BAD.values()):
        install(f"posbench-bad{number:02}", source.replace("{name}", "bad").replace("{summary}", ""))
    shown = posbench("plugins")
    assert shown.code == 0
    for _, reason in BAD.values():
        assert unwrapped(reason) in unwrapped(shown.out)
    assert posbench("run", "--dry-run").code == 0
    assert posbench("run", "--paddings", "bad", "--dry-run").code == 2


def test_an_interrupt_is_no_fault_of_a_plugin(install: Callable[..., None]) -> None:
    install("posbench-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_registry()


def test_a_bad_plugin_offers_no_backbones_by_search_either(install: Callable[..., None]) -> None:
    install(
        "posbench-bad",
        """
        from posbench import hookimpl

        @hookimpl
        def posbench_find_backbone(name):
            raise AssertionError("asked")

        @hookimpl
        def posbench_padings():
            return []
        """,
    )
    with pytest.raises(UsageError, match="unknown backbone 'resnet5000'"):
        load_registry().get(Backbone, "resnet5000")


def test_one_name_twice_from_one_distribution_is_told_apart(
    install: Callable[..., None], posbench: Callable[..., Ran]
) -> None:
    twice = ONE_PADDING.format(name="mirror", summary="both").replace("    return [", "    return 2 * [")
    install("posbench-a", twice)
    used = posbench("run", "--paddings", "mirror", "--dry-run")
    assert used.code == 2
    assert used.err == "posbench: padding 'mirror' is offered twice by posbench-a 1.0: a fault of that plugin\n"


def test_one_name_from_two_distributions_is_an_error_once_it_is_used(
    install: Callable[..., None], posbench: Callable[..., Ran]
) -> None:
    install("posbench-a", ONE_PADDING.format(name="mirror", summary="the first"))
    install("posbench-b", ONE_PADDING.format(name="mirror", summary="the second"), version="2.5")
    listed = posbench("list", "paddings")
    assert listed.code == 0
    assert "the first" in listed.out
    assert "the second" in listed.out
    assert posbench("run", "--paddings", "zero", "--dry-run").code == 0
    used = posbench("run", "--paddings", "zero,mirror", "--dry-run")
    assert used.code == 2
    assert used.err == (
        "posbench: padding 'mirror' is offered by both posbench-a 1.0 and posbench-b 2.5: uninstall one of them\n"
    )


def test_one_name_for_two_kinds_is_no_conflict(install: Callable[..., None]) -> None:
    install("posbench-h", ONE_PADDING.format(name="H", summary=""))
    registry = load_registry()
    assert registry.entry("padding", "H").plugin.label == "posbench-h 1.0"
    assert registry.entry("target", "H").plugin.distribution == "position-bench"


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [
        ("paddings", "circlar", "circular"),
        ("paddings", "Reflekt", "reflect"),
        ("targets", "h", "H"),
        ("metrics", "scp", "spc"),
        ("readouts", "rigde", "ridge"),
        ("images", "photo", "photos"),
        ("backbones", "resnet5", "resnet50"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    option: str, name: str, nearest: str, posbench: Callable[..., Ran]
) -> None:
    answer = posbench("run", f"--{option}", name, "--dry-run")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert f"unknown {option if option == 'images' else option[:-1]} {name!r}: did you mean" in answer.err
    assert nearest in answer.err.split("did you mean")[1].strip("?\n ").split(" or ")


def test_a_name_like_no_other_is_answered_with_where_to_look() -> None:
    with pytest.raises(UsageError) as caught:
        load_registry().get(Padding, "qqqqqq")
    assert str(caught.value) == "unknown padding 'qqqqqq': `posbench list paddings` shows the known ones"


def test_built_ins_come_first_and_by_the_same_door() -> None:
    registry = load_registry()
    assert {plugin.distribution for plugin in registry.plugins[:8]} == {"position-bench"}
    assert [plugin.error for plugin in registry.plugins if plugin.distribution == "position-bench"] == [None] * 8
    assert registry.names("target")[:5] == ["H", "V", "G", "HS", "VS"]


def test_components_come_in_the_order_asked_for() -> None:
    assert [target.name for target in load_registry().select(Target, ["VS", "H"])] == ["VS", "H"]


def test_a_search_for_a_backbone_that_raises_names_its_plugin(install: Callable[..., None]) -> None:
    install(
        "posbench-lost",
        "from posbench import hookimpl\n@hookimpl\ndef posbench_find_backbone(name):\n    raise OSError('no disk')",
    )
    with pytest.raises(PosbenchError, match=r"'nowhere', and plugin posbench-lost 1\.0: OSError: no disk"):
        load_registry().get(Backbone, "nowhere")


def test_images_by_path(tmp_path: Path) -> None:
    registry = load_registry()
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert find_images(registry, str(tmp_path)).label.startswith("folder:")
    with pytest.raises(UsageError, match="does not exist: give a folder of images or one of photos, leaves"):
        find_images(registry, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="is a file, not a folder"):
        find_images(registry, str(tmp_path / "a.png"))


def test_a_component_may_be_given_beside_those_of_plugins() -> None:
    registry = load_registry()
    mine = Padding(name="mine", summary="", version="1")
    registry.add(mine)
    registry.add(mine)
    assert registry.get(Padding, "mine") is mine
    assert registry.added == [mine]
    known = registry.get(Padding, "zero")
    registry.add(known)
    assert registry.added == [mine]


def test_a_given_component_needs_a_name_of_its_own() -> None:
    registry = load_registry()
    with pytest.raises(UsageError, match=r"padding 'zero' is not alone, position-bench .* offers one of this name"):
        registry.add(Padding(name="zero", summary="", version="9"))
    registry.add(Padding(name="mine", summary="", version="1"))
    with pytest.raises(UsageError, match="padding 'mine' is not alone, two were given"):
        registry.add(Padding(name="mine", summary="", version="2"))
