"""Standard output and standard error of all commands, and the registry with its warnings."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from posbench.core.errors import Interrupted
from posbench.core.text import ascii_form, has_unicode, printable
from posbench.plugin.registry import Registry, load_registry


class Screen(Console):
    """A console that writes only ASCII, before any layout, where the terminal cannot show Unicode."""

    @property
    def encoding(self) -> str:
        return super().encoding if has_unicode(super().encoding) else "ascii"

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects as `Console.print` does; strings are plain text, without markup or colours."""
        form = ascii_form if self.options.ascii_only else printable
        plain = (Text(form(item)) if isinstance(item, str) else item for item in objects)
        super().print(*plain, **options)


out = Screen()
err = Screen(stderr=True)


def write(text: str) -> None:
    """Write text for programs, such as CSV, to standard output: as UTF-8, whatever the terminal's encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def say(message: str, style: str = "") -> None:
    """Print a message on standard error."""
    err.print(str(message), style=style, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    say(f"posbench: {message}", "yellow")


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
