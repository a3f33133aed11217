"""Run the command line: `python -m posbench`."""

from posbench.cli import script

if __name__ == "__main__":
    script()
