"""Errors, text, files, processes, devices, memory and statistics: code that knows nothing of the benchmark.

Imports no other package of posbench.
"""
