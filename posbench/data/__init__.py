"""Image sources: photographs in folders, tensors and datasets in memory, dead leaves, and the crops cut from them.

The sources that posbench offers by name are plugins in `posbench.builtin.images`.
"""
