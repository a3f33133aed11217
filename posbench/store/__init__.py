"""Results on disk: the SQLite store, its validation, locks and merging, and published folders.

Computes and displays nothing.
"""
