"""Plugins that end their process, hang, or raise posbench's errors: they fail alone, and all else is stored."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.core.errors import ComponentError, Inapplicable, UsageError
from posbench.core.processes import interruptible
from posbench.plugin import sandbox
from posbench.plugin.components import Padding
from posbench.plugin.sandbox import call_in_subprocess, naming_errors, trusted_callback
from tests.command_line import SMALL
from tests.command_line import assert_message as said
from tests.conftest import Ran

Posbench = Callable[..., Ran]
Install = Callable[..., None]

OF = "of posbench-worse 1.0"

WORSE = """
import os, time
from pathlib import Path
from posbench import Backbone, Checkpoint, Images, MissingError, Padding, Readout, Target, UsageError, hookimpl
from posbench.core.errors import ComponentError


def zeros(x, sides):
    import torch.nn.functional as F
    return F.pad(x, sides)


class Mute(Exception):
    def __str__(self):
        raise ValueError("not even that")


def raising(error):
    def pad(x, sides):
        raise error
    return pad


ERRORS = {
    "usage": UsageError("hello from a plugin"), "missing": MissingError("hello"), "component": ComponentError("hello"),
    "mute": Mute(), "closes": GeneratorExit(), "interrupts": KeyboardInterrupt(), "base": BaseException("down"),
}


def late_change(x, sides):
    padded = zeros(x, sides)
    padded[1:] *= 2
    return padded


def late_mutate(x, sides):
    padded = zeros(x, sides)
    if len(x) > 4:
        x[-1:].mul_(2)
    return padded


@hookimpl
def posbench_paddings():
    pads = {name: raising(error) for name, error in ERRORS.items()}
    pads |= {"late-change": late_change, "late-mutate": late_mutate}
    return [Padding(name=name, summary="", version="1", pad=pad) for name, pad in pads.items()]


def build():
    from posbench_tiny import build
    return build()


def exits(*arguments):
    os._exit(7)


def hangs(*arguments):
    time.sleep(600)


def within(forward):
    def built():
        network = build()
        network.forward = forward
        return network
    return built


def on_meta(x):
    return [tap.to("meta") for tap in build()(x)]


def alien(path):
    import torch
    return {"one.weight": torch.zeros(1)}


@hookimpl
def posbench_backbones():
    builds = {
        "b-exits": exits, "b-hangs": hangs, "f-exits": within(exits), "f-hangs": within(hangs),
        "f-meta": within(on_meta),
    }
    here = lambda: Path(__file__)
    points = {
        "w-exits": (exits, None), "w-hangs": (hangs, None), "w-number": (lambda: 7, None),
        "r-exits": (here, exits), "r-hangs": (here, hangs), "r-alien": (here, alien),
    }
    made = [Backbone(name=name, summary="", version="1", build=build, taps=3) for name, build in builds.items()]
    return made + [
        Backbone(
            name=name, summary="", version="1", build=build, taps=3,
            checkpoints=(Checkpoint(label="imagenet:" + name, find=find, read=read),),
        )
        for name, (find, read) in points.items()
    ]


@hookimpl
def posbench_find_backbone(name):
    if name == "lost":
        os._exit(5)


@hookimpl
def posbench_images():
    every = {
        "i-exits": exits, "i-hangs": hangs, "i-numbers": lambda: [1, 2], "i-none": lambda: None, "i-empty": list,
        "i-nowhere": lambda: [Path("nowhere")], "i-usage": lambda: raising(ERRORS["usage"])(0, 0),
    }
    return [Images(name=name, summary="", version="1", photographs=found) for name, found in every.items()]


@hookimpl
def posbench_targets():
    def draw(side):
        import torch
        return torch.zeros(side, side, device="meta")
    return [Target(name="t-meta", summary="", version="1", draw=draw)]


@hookimpl
def posbench_readouts():
    return [Readout(name=name, summary="", version="1", fit=exits, grid=grid)
            for name, grid in {"g-exits": exits, "g-text": str}.items()]
"""


def rows(ran: Ran) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ran.out)))


def stored(by: str = "backbone") -> dict[str, tuple[str, str]]:
    """Return the status and reason of each stored cell, by the name of its backbone or another component."""
    with sqlite3.connect("posbench.db") as store:
        cells = store.execute("SELECT json_extract(identity, ?), status, reason FROM cells", (f"$.{by}.name",))
        return {name: (status, reason) for name, status, reason in cells}


@pytest.fixture
def _worse(tiny: str, install: Install) -> None:
    install("posbench-worse", WORSE)


EDGE = Padding(name="edge", summary="", version="1", offered_by="posbench-edge 1.0")
RUN = ("run", "--backbones", "tiny", "--paddings", "zero", *SMALL, "--targets", "H")


@pytest.mark.usefixtures("_worse")
def test_whatever_a_padding_raises_is_its_own(posbench: Posbench) -> None:
    names = "usage,missing,component,mute,closes,interrupts,base,late-change,late-mutate,zero"
    ran = posbench(*RUN, "--paddings", names, "--csv", "-")
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    expected = {
        "usage": ": hello from a plugin",
        "missing": ": hello",
        "component": ": hello",
        "mute": ": Mute: Mute",
        "closes": ": GeneratorExit: GeneratorExit",
        "interrupts": ": KeyboardInterrupt: KeyboardInterrupt",
        "base": ": BaseException: down",
        "late-change": " changed the interior of the map at one",
        "late-mutate": " wrote into the map that it was given at one",
    }
    assert stored("padding") == {
        "zero": ("ok", ""),
        **{name: ("failed", f"padding {name!r} {OF}{why}") for name, why in expected.items()},
    }


@pytest.mark.usefixtures("_worse")
def test_wrong_devices_and_weights_that_do_not_fit_cost_their_own_jobs(posbench: Posbench) -> None:
    ran = posbench(*RUN, "--backbones", "f-meta,r-alien,tiny", "--targets", "H", "--csv", "-")
    assert ran.code == 1, ran.err
    cells = stored()
    assert cells["tiny"] == ("ok", "")
    assert cells["f-meta"] == (
        "failed",
        f"backbone 'f-meta' {OF} must return 3 feature maps [n, channels, height, width] on cpu",
    )
    assert cells["r-alien"][0] == "failed"
    alien = f"backbone 'r-alien' {OF}: weights imagenet:r-alien do not fit backbone 'r-alien': they lack one.bias"
    assert cells["r-alien"][1].startswith(alien)
    ran = posbench(*RUN, "--targets", "H,t-meta", "--csv", "-")
    assert ran.code == 1
    cells = stored("target")
    assert cells["H"][0] == "ok"
    assert cells["t-meta"][0] == "failed"
    assert cells["t-meta"][1].startswith(f"target 't-meta' {OF}")


@pytest.mark.usefixtures("_worse")
def test_what_cannot_be_planned_is_left_out_and_the_rest_is_computed(posbench: Posbench) -> None:
    options = ("--backbones", "tiny,w-exits,w-number,lost", "--readouts", "ridge,g-exits,g-text")
    ran = posbench(
        *RUN, *options, "--images", "leaves,i-exits,i-numbers,i-none,i-empty,i-nowhere,i-usage", "--csv", "-"
    )
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    for why in (
        f"backbone 'w-exits' {OF}: its process died (exit 7)",
        f"backbone 'w-number' {OF}: TypeError: ",
        "no plugin offers backbone 'lost', and plugin posbench-worse 1.0: its process died (exit 5)",
        f"readout 'g-exits' {OF}: its process died (exit 7)",
        f"readout 'g-text' {OF}: TypeError: grid returned ",
        f"images 'i-exits' {OF}: its process died (exit 7)",
        f"images 'i-numbers' {OF}: ",
        f"images 'i-none' {OF}: TypeError: ",
        f"images 'i-empty' {OF}: ValueError: it has no photographs",
        f"images 'i-nowhere' {OF}: ",
        f"images 'i-usage' {OF}: hello from a plugin",
    ):
        assert ran.err.count(f"posbench: warning: left out: {why}") == 1, why
    assert [(row["backbone"], row["images"], row["readout"], row["status"]) for row in rows(ran)] == [
        ("tiny", "leaves", "ridge", "ok")
    ]
    assert stored() == {"tiny": ("ok", "")}
    assert posbench(*RUN, *options, "--dry-run").code == 1
    # Without any other source, it is an error.
    said(posbench(*RUN, "--images", "i-exits"), 2, f"posbench: images 'i-exits' {OF}: its process died (exit 7)")


def test_a_trial_is_ended_when_it_is_late() -> None:
    start = time.monotonic()
    with pytest.raises(
        ComponentError, match=r"^padding 'edge' of posbench-edge 1\.0: it took longer than --time-limit"
    ):
        call_in_subprocess(EDGE, lambda: time.sleep(60), 0.2)
    assert time.monotonic() - start < 30

    def fail() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match=r"^no$"):
        call_in_subprocess(EDGE, fail)
    assert call_in_subprocess(EDGE, os.getpid) != os.getpid()
    assert (
        call_in_subprocess(Padding(name="zero", summary="", version="1", offered_by="position-bench 1.0"), os.getpid)
        == os.getpid()
    )


def test_one_interrupt_of_a_whole_terminal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subprocess that gets the signal as it starts does not write to its parent's wakeup descriptor."""
    end_with_parent = sandbox.end_with_parent

    def signalled_at_once() -> None:
        signal.raise_signal(signal.SIGINT)
        end_with_parent()

    monkeypatch.setattr(sandbox, "end_with_parent", signalled_at_once)
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    with receiver, sender, interruptible():
        before = signal.set_wakeup_fd(sender.fileno())
        try:
            assert call_in_subprocess(EDGE, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])) == set()
        finally:
            signal.set_wakeup_fd(before)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


def test_an_error_names_the_innermost_component() -> None:
    inner = Padding(name="inner", summary="", version="1", offered_by="posbench-inner 2.0")
    with (
        pytest.raises(ComponentError, match=r"^padding 'inner' of posbench-inner 2\.0: OSError: gone$"),
        naming_errors(EDGE),
        naming_errors(inner),
    ):
        raise OSError("gone")
    with pytest.raises(Inapplicable, match=r"^too small$"), naming_errors(EDGE), naming_errors(inner):
        raise Inapplicable("too small")


def test_only_errors_that_posbench_attributed_pass_unchanged() -> None:
    with pytest.raises(ComponentError, match=r"^padding 'edge' of posbench-edge 1\.0: hello$"), naming_errors(EDGE):
        raise ComponentError("hello")
    with pytest.raises(ComponentError, match=r"^padding 'inner' is wrong$"), naming_errors(EDGE), trusted_callback():
        raise ComponentError("padding 'inner' is wrong")


@pytest.mark.long
@pytest.mark.usefixtures("_worse")
def test_a_network_that_takes_its_process_down_is_a_result_of_a_serial_run(posbench: Posbench) -> None:
    ran = posbench(*RUN, "--backbones", "b-exits,f-exits,tiny", "--weights", "random", "--csv", "-")
    assert ran.code == 1, ran.err
    assert stored() == {
        "tiny": ("ok", ""),
        **{
            name: ("failed", f"its process died 2 times (exit 7) in backbone {name!r} {OF}")
            for name in ("b-exits", "f-exits")
        },
    }


@pytest.mark.long
@pytest.mark.usefixtures("_worse")
def test_hangs_before_and_in_the_first_job_are_ended(posbench: Posbench) -> None:
    names = "tiny,b-hangs,f-hangs,w-hangs,r-hangs,r-exits"
    options = ("--images", "i-hangs,leaves", "--jobs", "2", "--time-limit", "6", "--csv", "-")
    ran = posbench(*RUN, "--backbones", names, *options)
    assert ran.code == 1, ran.err
    late = "it took longer than --time-limit 6 s, and was ended"
    for component in ("images 'i-hangs'", "backbone 'w-hangs'"):
        assert f"posbench: warning: left out: {component} {OF}: {late}" in ran.err
    expected = {name: f"{late} in backbone {name!r} {OF}" for name in ("b-hangs", "f-hangs", "r-hangs")}
    expected["r-exits"] = f"its process died 2 times (exit 7) in backbone 'r-exits' {OF}"
    assert stored() == {"tiny": ("ok", ""), **{name: ("failed", why) for name, why in expected.items()}}


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "reason"),
    [("os._exit(9)", "exit 9"), ("time.sleep(600)", "their plan takes longer than 3 s")],
)
def test_workers_that_do_not_start_end_the_run(
    code: str, reason: str, posbench: Posbench, install: Install, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posbench.runner.scheduler.PLANNING_SECONDS", 3.0)
    install(
        "posbench-elsewhere",
        f"import multiprocessing, os, time\nif multiprocessing.parent_process():\n    {code}\n",
    )
    ran = posbench(*RUN, "--jobs", "2", "--time-limit", "2")
    assert (ran.code, ran.out) == (1, "")
    assert f"posbench: workers do not start ({reason} in plugin posbench-elsewhere 1.0): " in ran.err
    assert "Traceback" not in ran.err
    assert stored() == {}


def test_a_thread_that_a_plugin_leaves_does_not_keep_the_command(install: Install, tmp_path: Path) -> None:
    install(
        "posbench-busy",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n",
    )
    command = [sys.executable, "-c", "from posbench.cli import script; script()", "list", "metrics"]
    process = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    assert "spc" in process.stdout


#: A command that interrupts itself while the command line is imported.
INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

from posbench.cli import main
sys.meta_path.insert(0, Interrupts())
main()
"""


def test_an_interrupt_during_the_imports_is_130_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "list"]
    process = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == "posbench: interrupted\n"
