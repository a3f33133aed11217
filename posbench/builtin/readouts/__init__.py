"""Built-in readouts: linear ones by ridge regression and by gradient descent, with their solvers.

The hook is in `hooks`.
"""
