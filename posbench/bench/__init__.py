"""The measurement: options, the plan of jobs and cells, controls, the engine, scoring and verdicts.

Stores and displays nothing: `posbench.store` and `posbench.report` do, from the records made here.
"""
