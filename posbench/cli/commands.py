"""The commands, in the order in which the help lists them.

The table repeats the first line of each command's docstring, so that `posbench --help` imports no command's module.
"""

from typing import NamedTuple


class Command(NamedTuple):
    """A command of `posbench`.

    Attributes:
        function: the module in `posbench.cli` and the function in it, as `module:function`.
        summary: one line for the help.
    """

    function: str
    summary: str


COMMANDS = {
    "run": Command("run:run", "Probe every combination of the components named, and show the leaderboard."),
    "leaderboard": Command("results:leaderboard", "Show everything that a store holds, the best first."),
    "measures": Command(
        "results:measures", "Show what a store holds of networks as a whole: metrics that need no target."
    ),
    "compare": Command(
        "results:compare", "Show the differences between two sides, cell by cell, on the same photographs."
    ),
    "show": Command("results:show", "Draw a cell's mean predicted map beside its target, and tell how it was made."),
    "publish": Command(
        "share:publish",
        "Write a store's results as files to commit: tables, cells, a report, and provenance called by its own hash.",
    ),
    "merge": Command(
        "share:merge", "Join stores, such as the shards of a run; refuses different results for one cell."
    ),
    "report": Command("share:report", "Write a store's results as one HTML page. [needs the extra `report`]"),
    "list": Command("components:list_", "Show the components that can be named, all or of one kind."),
    "experiment": Command("components:experiment", "Print an experiment's configuration, to copy and change."),
    "plugins": Command(
        "components:plugins", "Show the plugins found, what they offer, and why one could not be loaded."
    ),
    "audit": Command(
        "diagnose:audit",
        "Show every padded operation of a network, and whether its padding is even; "
        "fails if a strategy would miss one.",
    ),
    "doctor": Command(
        "diagnose:doctor",
        "Check packages, device, weights, photographs, hub, disk and plugins; exit code 4 if a bare run cannot work.",
    ),
    "new-plugin": Command(
        "components:new_plugin", "Write a plugin to begin with: it installs, is found, and passes its own tests."
    ),
}
