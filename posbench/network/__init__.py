"""Frozen networks: weights, building, padding, the forward pass, receptive fields and the audit.

The networks and paddings that posbench offers by name are plugins in `posbench.builtin`.
"""
