"""The examples of the hooks in the guide for plugin authors."""

from __future__ import annotations

import re
from pathlib import Path

from posbench.plugin import hookspecs

GUIDE = Path(__file__).parents[1] / "docs" / "plugins.md"
#: Names of all hooks.
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("posbench_"))


def example(hook: str) -> str:
    """Return the code of the guide that implements a hook."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    [code] = [block for block in blocks if f"def {hook}(" in block]
    return code
