"""Measure time, memory and disk space of one job by its number of images.

    python benchmarks/many_images.py [--backbone tf_efficientnet_lite0] [--crops 1000,10000] [--precision fp32]

Runs `posbench run` on the packaged photographs in a process of its own for each number of crops, a fifth of them for
testing, and watches the process. Prints a Markdown table: wall-clock and processor seconds, the greatest anonymous
memory (`RssAnon`), and the greatest size of features on disk. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def peak_usage(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for a process; return its greatest anonymous memory and greatest size of mapped unnamed files, in bytes."""
    memory = disk = 0
    proc = Path("/proc") / str(process.pid)
    while process.poll() is None:
        try:
            status, maps = (proc / "status").read_text(), (proc / "maps").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break  # it has just ended
        memory = max(memory, *(1024 * int(size) for size in re.findall(r"RssAnon:\s+(\d+)", status)), 0)
        spans = re.findall(rf"^(\w+)-(\w+) .*{tempfile.gettempdir()}/.*\(deleted\)$", maps, re.MULTILINE)
        disk = max(disk, sum(int(end, 16) - int(start, 16) for start, end in spans))
        time.sleep(0.2)
    return memory, disk


def table_row(backbone: str, crops: int, precision: str, folder: str) -> str:
    """Run one job and return its row of the table."""
    test = crops // 5
    command = [sys.executable, "-c", "from posbench.cli import script; script()", "run", "--quiet"]
    command += ["--backbones", backbone, "--paddings", "zero", "--precision", precision]
    command += ["--train-count", str(crops - test), "--test-count", str(test), "--store", f"{folder}/{crops}.db"]
    start, before = time.perf_counter(), os.times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  its own command line
    memory, disk = peak_usage(process)
    if process.wait():
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    after, wall = os.times(), time.perf_counter() - start
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    per_crop = 1000 * cpu / crops
    return (
        f"| {backbone}, {precision} | {crops} | {wall:.0f} s | {cpu:.0f} s | {per_crop:.0f} ms "
        f"| {memory / 1e9:.1f} GB | {disk / 1e9:.1f} GB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--crops", default="1000,10000")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    print("| network | crops | wall clock | processor | processor, a crop | memory | disk |\n|---|" + "---:|" * 6)
    with tempfile.TemporaryDirectory() as folder:
        for crops in options.crops.split(","):
            print(table_row(options.backbone, int(crops), options.precision, folder), flush=True)


if __name__ == "__main__":
    main()
