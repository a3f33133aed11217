"""Results for people and programs: rows, CSV, leaderboards, comparisons, and terminal, Markdown and HTML output.

Reads stores; computes and stores no results.
"""
