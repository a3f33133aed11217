"""Finds plugins by entry point, one by one, and catalogues the components that they offer.

A plugin that cannot be loaded, misspells a hook or raises in one costs only its own components: it is kept in the
catalogue with its error.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

import pluggy

from posbench.core.errors import ComponentError, UsageError, one_line, unknown
from posbench.core.processes import interrupt_is_plugins_own
from posbench.core.version import DISTRIBUTION
from posbench.plugin import hookspecs
from posbench.plugin.components import Backbone, Component, Executor, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Control
from posbench.plugin.sandbox import call_in_subprocess, naming_errors, running_component

#: The kinds of component, by the singular that messages use; `KIND + "s"` is the plural that users type.
KINDS: dict[str, type[Component]] = {
    "backbone": Backbone,
    "padding": Padding,
    "images": Images,
    "target": Target,
    "readout": Readout,
    "metric": Metric,
    "control": Control,
    "executor": Executor,
}

C = TypeVar("C", bound=Component)


def plural(kind: str) -> str:
    """The plural of a kind, as commands and hooks spell it."""
    return kind if kind.endswith("s") else kind + "s"


@dataclass
class Plugin:
    """One entry point: where it came from, what it implements, and what went wrong."""

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def label(self) -> str:
        """The distribution and its version, as messages and tables show it."""
        return f"{self.distribution} {self.version}"

    @property
    def title(self) -> str:
        """What it is, for messages about what it did."""
        return f"plugin {self.label}"

    @property
    def foreign(self) -> bool:
        """Whether it is from another distribution than posbench."""
        return self.distribution != DISTRIBUTION


@dataclass(frozen=True)
class Entry:
    """A component and the plugin that offers it."""

    component: Component
    plugin: Plugin


#: In place of a plugin, for components that the caller has made.
_GIVEN = Plugin("given", "(given)", "-")


class Registry:
    """Every component that the loaded plugins offer."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self.plugins: list[Plugin] = []
        #: Components that no plugin offers.
        self.given: list[Component] = []
        #: Seconds that a plugin may take to look for a backbone, or None.
        self.limit: float | None = None
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for point in points:
            self._add(point)

    def _add(self, point: EntryPoint) -> None:
        """Load one entry point; whatever it raises is noted and its components are left out."""
        # An EntryPoint made by hand, as tests do, belongs to no distribution.
        distribution = point.dist.name if point.dist else "(no distribution)"
        plugin = Plugin(point.name, distribution, point.dist.version if point.dist else "-")
        self.plugins.append(plugin)
        key = f"{distribution}:{point.name}"
        try:
            with running_component(plugin.title):
                module = _quietly(point.load)
                self._manager.register(module, name=key)
                self._manager.check_pending()
                plugin.hooks = sorted(caller.name for caller in self._manager.get_hookcallers(module) or [])
                found = list(self._offered(key))
        # A plugin may even call sys.exit() on import; only an interrupt from the keyboard is not its fault.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not interrupt_is_plugins_own():
                raise KeyboardInterrupt(f"while {plugin.title} was loaded") from error
            plugin.error = f"{type(error).__name__}: {one_line(error)}"
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            return
        for kind, component in found:
            self._entries[kind].setdefault(component.name, []).append(Entry(_signed(component, plugin), plugin))

    def _offered(self, key: str) -> Iterator[tuple[str, Component]]:
        """The records that one registered plugin returns, checked to be records of the kind that the hook is for."""
        for kind, record in KINDS.items():
            caller = getattr(self._manager.hook, f"posbench_{plural(kind)}")
            for implementation in caller.get_hookimpls():
                if implementation.plugin_name != key:
                    continue
                for component in _quietly(partial(_listed, implementation.function)):
                    if not isinstance(component, record):
                        raise TypeError(f"{caller.name} returned {component!r}, which is no {record.__name__}")
                    Component.__post_init__(component)  # a class of the plugin's own may have left it out
                    hash(component)  # plans sort jobs by their components
                    yield kind, component

    def entries(self, kind: str) -> list[Entry]:
        """Every component of a kind, in the order in which the plugins offered them; conflicting names included."""
        return [entry for entries in self._entries[kind].values() for entry in entries]

    def names(self, kind: str) -> list[str]:
        """The names of a kind's components."""
        return list(self._entries[kind])

    def entry(self, kind: str, name: str) -> Entry:
        """The component of a name, with its plugin.

        Raises:
            UsageError: if nothing, or more than one thing, is called so.
        """
        entries = self._entries[kind].get(name, [])
        if len(entries) > 1:
            owners = list(dict.fromkeys(entry.plugin.label for entry in entries))
            if len(owners) == 1:
                raise UsageError(f"{kind} {name!r} is offered twice by {owners[0]}: a fault of that plugin")
            raise UsageError(f"{kind} {name!r} is offered by both {' and '.join(owners)}: uninstall one of them")
        if entries:
            return entries[0]
        found = self._find_backbone(name) if kind == "backbone" else None
        if found is None:
            raise unknown(kind, name, self._entries[kind])
        self._entries[kind][name] = [found]
        return found

    def _find_backbone(self, name: str) -> Entry | None:
        """Ask the plugins, one by one, for a backbone that none of them listed."""
        problems: list[str] = []
        implementations = {one.plugin_name: one for one in self._manager.hook.posbench_find_backbone.get_hookimpls()}
        # Posbench's own first: what it knows no other is asked for.
        for plugin in sorted(self.plugins, key=lambda plugin: plugin.foreign):
            if (implementation := implementations.get(f"{plugin.distribution}:{plugin.name}")) is None:
                continue
            asked = partial(_asked, plugin, implementation.function, name)
            try:
                if plugin.foreign:
                    call_in_subprocess(plugin, lambda asked=asked: asked() is None, self.limit)  # type: ignore[misc]
                component = asked()
            except ComponentError as error:
                problems.append(f"{one_line(error)} (when it looked for it)")
                continue
            if isinstance(component, Backbone):
                return Entry(_signed(component, plugin), plugin)
        if problems:
            raise ComponentError(f"no plugin offers backbone {name!r}, and {problems[0]}")
        return None

    def give(self, component: Component) -> None:
        """Add a component that the caller has made, unless it is there already.

        Raises:
            UsageError: if another of its kind is called so.
        """
        entries = self._entries[component.kind].setdefault(component.name, [])
        if any(entry.component == component for entry in entries):
            return
        if entries:
            plugin = entries[0].plugin
            owner = f"{plugin.label} offers one" if plugin is not _GIVEN else "two were given"
            raise UsageError(f"{component.title} is not alone, {owner} of this name: give it another")
        entries.append(Entry(component, _GIVEN))
        self.given.append(component)

    def get(self, record: type[C], name: str) -> C:
        """The component of a name, by the class of its record. Raises as `entry` does."""
        kind = next(kind for kind, cls in KINDS.items() if cls is record)
        return cast(C, self.entry(kind, name).component)

    def select(self, record: type[C], names: Sequence[str]) -> list[C]:
        """Components by name, in the order given."""
        return [self.get(record, name) for name in names]

    def every(self, record: type[C]) -> list[C]:
        """The components of a kind, without those whose names are not theirs alone."""
        kind = next(kind for kind, cls in KINDS.items() if cls is record)
        return [cast(C, entries[0].component) for entries in self._entries[kind].values() if len(entries) == 1]


def _signed(component: C, plugin: Plugin) -> C:
    """The same component, which says where it is from. The plugin keeps its own."""
    signed = copy.copy(component)
    object.__setattr__(signed, "offered_by", plugin.label)
    return signed


def _asked(plugin: Plugin, function: Callable[..., object], name: str) -> object:
    """What a plugin answers when it is asked for a backbone."""
    with naming_errors(plugin):
        return _quietly(partial(function, name=name))


def _listed(function: Callable[[], Iterable[Any]]) -> list[Any]:
    return list(function())


def _quietly(function: Callable[[], Any]) -> Any:
    """What a plugin's function returns; what it prints goes to standard error, since standard output is for tables."""
    with redirect_stdout(sys.stderr):
        return function()


def load_registry() -> Registry:
    """The registry of this environment: posbench's own components first, then the installed plugins by name."""

    def order(point: EntryPoint) -> tuple[bool, str, str]:
        name: Any = point.dist.name if point.dist else ""
        return name != DISTRIBUTION, name, point.name

    return Registry(sorted(entry_points(group=hookspecs.PROJECT), key=order))
