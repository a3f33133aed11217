"""Runs: plan the jobs, compute them in this process, in workers or on a Ray cluster, and store the results.

Not called `run`: importing a sub-package of that name would overwrite the public function `posbench.run`.
"""
