"""The components that posbench ships, brought in through the same entry points as anyone else's."""
