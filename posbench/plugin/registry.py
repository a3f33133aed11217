"""The registry of components: plugins are found by entry point and loaded one by one.

A plugin that cannot be loaded, misspells a hook or raises in one costs only its own components. The registry keeps it
with its error.
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
from posbench.core.processes import is_plugin_interrupt
from posbench.core.version import DISTRIBUTION
from posbench.plugin import hookspecs
from posbench.plugin.components import Backbone, Component, Executor, Images, Metric, Padding, Readout, Target
from posbench.plugin.control import Control, ControlCatalogue
from posbench.plugin.sandbox import call_in_subprocess, naming_errors, running_component

#: The kinds of component, by the singular that messages use (see `plural`).
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
    """Return the plural of a kind, as commands and hooks spell it."""
    return kind if kind.endswith("s") else kind + "s"


@dataclass
class Plugin:
    """One entry point: its distribution, the hooks that it implements, and the error that it was left out for."""

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
        """The name that messages use, such as `plugin posbench-edge 1.0`."""
        return f"plugin {self.label}"

    @property
    def foreign(self) -> bool:
        """True if it is from another distribution than posbench."""
        return self.distribution != DISTRIBUTION


@dataclass(frozen=True)
class Entry:
    """A component and the plugin that offers it."""

    component: Component
    plugin: Plugin


#: The plugin of components that `Registry.add` added.
_CALLER = Plugin("given", "(given)", "-")


class Registry:
    """The components that the loaded plugins offer.

    Args:
        points: the entry points to load.

    Attributes:
        plugins: one for each entry point, with its error if it was left out.
        added: the components that `add` added, which no plugin offers.
        time_limit: seconds that a plugin may take to find a backbone by name, or None.
    """

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self.plugins: list[Plugin] = []
        self.added: list[Component] = []
        self.time_limit: float | None = None
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for point in points:
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        """Load one entry point; on any error, keep the error and leave its components out."""
        # An EntryPoint made by hand, as in tests, belongs to no distribution.
        distribution = point.dist.name if point.dist else "(no distribution)"
        plugin = Plugin(point.name, distribution, point.dist.version if point.dist else "-")
        self.plugins.append(plugin)
        key = f"{distribution}:{point.name}"
        try:
            with running_component(plugin.title):
                module = _without_stdout(point.load)
                self._manager.register(module, name=key)
                self._manager.check_pending()
                plugin.hooks = sorted(caller.name for caller in self._manager.get_hookcallers(module) or [])
                components = list(self._components_of(key))
        # A plugin may even call sys.exit() on import. Only an interrupt from the keyboard is not its fault.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not is_plugin_interrupt():
                raise KeyboardInterrupt(f"while {plugin.title} was loaded") from error
            plugin.error = f"{type(error).__name__}: {one_line(error)}"
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            return
        for kind, component in components:
            self._entries[kind].setdefault(component.name, []).append(_entry(component, plugin))

    def _components_of(self, key: str) -> Iterator[tuple[str, Component]]:
        """Yield the kind and record of each component of a registered plugin, checked to fit its hook."""
        for kind, record in KINDS.items():
            caller = getattr(self._manager.hook, f"posbench_{plural(kind)}")
            for implementation in caller.get_hookimpls():
                if implementation.plugin_name != key:
                    continue
                for component in _without_stdout(partial(_list, implementation.function)):
                    if not isinstance(component, record):
                        raise TypeError(f"{caller.name} returned {component!r}, which is no {record.__name__}")
                    Component.__post_init__(component)  # a plugin's subclass may skip these checks
                    hash(component)  # plans need hashable components
                    yield kind, component

    def entries(self, kind: str) -> list[Entry]:
        """Return all components of a kind in the order of the plugins, those with conflicting names included."""
        return [entry for entries in self._entries[kind].values() for entry in entries]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind's components."""
        return list(self._entries[kind])

    def entry(self, kind: str, name: str) -> Entry:
        """Return the component of this name with its plugin.

        Raises:
            UsageError: if no component, or more than one, has this name.
            ComponentError: if no plugin offers this backbone, and one of them failed when it searched for it.
        """
        entries = self._entries[kind].get(name, [])
        if len(entries) > 1:
            owners = list(dict.fromkeys(entry.plugin.label for entry in entries))
            if len(owners) == 1:
                raise UsageError(f"{kind} {name!r} is offered twice by {owners[0]}: a fault of that plugin")
            raise UsageError(f"{kind} {name!r} is offered by both {' and '.join(owners)}: uninstall one of them")
        if entries:
            return entries[0]
        entry = self._find_backbone(name) if kind == "backbone" else None
        if entry is None:
            raise unknown(kind, name, self._entries[kind])
        self._entries[kind][name] = [entry]
        return entry

    def _find_backbone(self, name: str) -> Entry | None:
        """Search the plugins, one by one, for a backbone that none of them listed."""
        problems: list[str] = []
        hook = self._manager.hook.posbench_find_backbone
        implementations = {implementation.plugin_name: implementation for implementation in hook.get_hookimpls()}
        # posbench's own first, so that other plugins are not asked for a backbone that it knows.
        for plugin in sorted(self.plugins, key=lambda plugin: plugin.foreign):
            if (implementation := implementations.get(f"{plugin.distribution}:{plugin.name}")) is None:
                continue
            search = partial(_search, plugin, implementation.function, name)
            try:
                if plugin.foreign:
                    call_in_subprocess(plugin, lambda search=search: search() is None, self.time_limit)  # type: ignore[misc]
                component = search()
            except ComponentError as error:
                problems.append(f"{one_line(error)} (when it looked for it)")
                continue
            if isinstance(component, Backbone):
                return _entry(component, plugin)
        if problems:
            raise ComponentError(f"no plugin offers backbone {name!r}, and {problems[0]}")
        return None

    def add(self, component: Component) -> None:
        """Add a component that the caller has made, unless the registry has it already.

        Raises:
            UsageError: if another component of its kind has this name.
        """
        entries = self._entries[component.kind].setdefault(component.name, [])
        if any(entry.component == component for entry in entries):
            return
        if entries:
            plugin = entries[0].plugin
            owner = f"{plugin.label} offers one" if plugin is not _CALLER else "two were given"
            raise UsageError(f"{component.title} is not alone, {owner} of this name: give it another")
        entries.append(Entry(component, _CALLER))
        self.added.append(component)

    def get(self, record: type[C], name: str) -> C:
        """Return the component of this name, by the class of its record. Raises as `entry` does."""
        kind = next(kind for kind, cls in KINDS.items() if cls is record)
        return cast(C, self.entry(kind, name).component)

    def select(self, record: type[C], names: Sequence[str]) -> list[C]:
        """Return components by name, in the order given. Raises as `entry` does."""
        return [self.get(record, name) for name in names]

    def control_catalogue(self) -> ControlCatalogue:
        """Return the controls as stored results are interpreted by."""
        null_images = (images.label or images.name for images in self.every(Images) if images.reference == "null")
        return ControlCatalogue(self.every(Control), null_images)

    def every(self, record: type[C]) -> list[C]:
        """Return the components of a kind, except those with conflicting names."""
        kind = next(kind for kind, cls in KINDS.items() if cls is record)
        return [cast(C, entries[0].component) for entries in self._entries[kind].values() if len(entries) == 1]


def _entry(component: Component, plugin: Plugin) -> Entry:
    """Return the entry of a plugin's component: a copy with its `offered_by` set."""
    component = copy.copy(component)
    object.__setattr__(component, "offered_by", plugin.label)
    return Entry(component, plugin)


def _search(plugin: Plugin, function: Callable[..., object], name: str) -> object:
    """Call a plugin's `posbench_find_backbone`."""
    with naming_errors(plugin):
        return _without_stdout(partial(function, name=name))


def _list(function: Callable[[], Iterable[Any]]) -> list[Any]:
    return list(function())


def _without_stdout(function: Callable[[], Any]) -> Any:
    """Call a plugin's function; what it prints goes to standard error, since standard output is for tables."""
    with redirect_stdout(sys.stderr):
        return function()


def load_registry() -> Registry:
    """Load the registry of this environment: posbench's own components first, then the installed plugins by name."""

    def order(point: EntryPoint) -> tuple[bool, str, str]:
        name: Any = point.dist.name if point.dist else ""
        return name != DISTRIBUTION, name, point.name

    return Registry(sorted(entry_points(group=hookspecs.PROJECT), key=order))
