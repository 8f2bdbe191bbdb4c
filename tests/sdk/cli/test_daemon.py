"""status and ps against a real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mapcell.attaching import attach
from mapcell.cli.daemon import command
from support.daemon import DaemonProcess

from .conftest import Cli

STATUS_FIELDS = {
    "pid", "version", "uptime", "budget", "sealed", "mapped", "models", "leases", "connections", "descriptors",
    "staging",
}  # fmt: skip
WORKER = """
import sys
from mapcell.attaching import attach
weights = attach("small")
view = weights["ids"]
print("ready", flush=True)
sys.stdin.read()
"""


def test_status_fields(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """status counts what there is, under the fixed names."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    document = cli.json("status")
    assert document.keys() >= STATUS_FIELDS
    assert (document["pid"], document["budget"], document["sealed"]) == (daemon.pid, 64 << 20, 4096)
    assert (document["models"], document["mapped"], document["staging"]) == (1, 0, [])
    assert document["uptime"] > 0


def test_status_for_people(cli: Cli, daemon: DaemonProcess) -> None:
    """For people sizes and times come in units."""
    ran = cli("status")
    assert ran.status == 0
    assert f"pid {daemon.pid}, up " in ran.out
    assert "0 B of 64.0 MiB (0 %)" in ran.out
    assert str(daemon.runtime) in ran.out


def test_nobody_holds_anything(cli: Cli, daemon: DaemonProcess) -> None:
    """Without leases ps lists none, and says so on stderr."""
    assert cli.json("ps") == []
    ran = cli("ps")
    assert (ran.status, ran.out) == (0, "")
    assert "no process holds a model" in ran.err


def test_ps_names_the_worker(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """ps shows who holds what since when, and the command line without its control characters."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    began = time.time()
    arguments = [sys.executable, "-c", WORKER, "--worker\x1b[31m"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=daemon.env()) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        (row,) = cli.json("ps")
        out = cli("ps").out
        worker.stdin.close()
        assert worker.wait() == 0
    assert (row["pid"], row["uid"], row["name"], row["nbytes"]) == (worker.pid, os.getuid(), "small", 4096)
    assert row["version"].startswith("blake3:")
    assert began - 1 < row["since"] < time.time() + 1
    assert row["command"].endswith("--worker\x1b[31m")
    assert str(worker.pid) in out.split()
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_ps_counts_leases_not_processes(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """A process that attached twice holds two leases."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    with attach("small"), attach("small"):
        assert [row["pid"] for row in cli.json("ps")] == [os.getpid()] * 2


@pytest.mark.parametrize(
    ("pid", "since"),
    [
        pytest.param(0, 0.0, id="nobody's number"),
        pytest.param(-1, 0.0, id="no number"),
        pytest.param(2**22 + 1, 0.0, id="beyond the kernel's numbers"),
        pytest.param(os.getpid(), 1.0, id="began after the lease, so another one"),
    ],
)
def test_unknown_command(pid: int, since: float) -> None:
    """A process that is not there, or is another one by now, is a question mark."""
    assert command(pid, since) == "?"


def test_known_command() -> None:
    """A process that was there when the lease began shows its command line."""
    assert command(os.getpid(), time.time()).startswith(Path("/proc/self/cmdline").read_text().split("\0")[0])
