"""The components that posbench ships, offered through the same entry points as those of other distributions.

Imports only what a third-party plugin may import.
"""
