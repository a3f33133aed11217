"""The contract with plugins: component records, hooks, the registry, error isolation and the scaffold.

Components themselves are in `posbench.builtin` and in other distributions.
"""
