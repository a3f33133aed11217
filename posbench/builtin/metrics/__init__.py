"""Built-in metrics: scores of a cell, position modes and the padding-induced pattern (PPP) of a job.

The hook is in `scores`.
"""
