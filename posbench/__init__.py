"""Measure how much absolute position a network's features carry, and where it comes from.

This module is the public API: `run`, `backbone` and `images` for notebooks, and the records and `hookimpl` for plugins.
Its names are listed in the stub beside it, `__init__.pyi`. Each is imported when it is first used, so `import posbench`
loads neither torch nor NumPy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
