"""The examples in the docstrings of the hooks."""

from __future__ import annotations

import inspect
import re
import textwrap

from posbench.plugin import hookspecs

#: Names of all hooks.
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("posbench_"))


def example(hook: str) -> str:
    """Return the code that a hook's docstring shows."""
    [code] = re.findall(r"```python\n(.*?)```", inspect.getdoc(getattr(hookspecs, hook)) or "", re.DOTALL)
    return textwrap.dedent(code)
