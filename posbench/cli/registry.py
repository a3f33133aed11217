"""The registry of components, as the commands load it."""

from posbench.cli.console import warn
from posbench.core.errors import Interrupted
from posbench.plugin.registry import Registry, load_registry


def registry() -> Registry:
    """Load all components, and warn about each plugin that is left out.

    Raises:
        Interrupted: if the user stops it.
    """
    try:
        loaded = load_registry()
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted {stop}") from None
    for plugin in loaded.plugins:
        if plugin.error:
            warn(f"plugin {plugin.label} is left out ({plugin.error}); see `posbench plugins`")
    return loaded
