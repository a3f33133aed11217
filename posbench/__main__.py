"""Run the command line as `python -m posbench`."""

from posbench.cli import script

if __name__ == "__main__":
    script()
