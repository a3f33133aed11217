"""The components that posbench ships, registered through the same entry points as third-party plugins.

This package uses what a plugin may use: the public API, `posbench.plugin` and `posbench.core`. The framework never
imports it.
"""
