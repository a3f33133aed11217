"""Standard output and standard error: text that fits the terminal, and bytes for programs."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from posbench.core.text import ascii_form, has_unicode, printable


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
