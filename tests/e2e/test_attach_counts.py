"""What one attach costs, counted: system calls on both sides, descriptors, bytes read, threads, libraries."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import DaemonUnavailable
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.proc import eventually

ROUNDS = 40
# A worker's: connect, ask, receive; read the manifest; map the segment, with Python's fstat and dup; and let go of all.
# Room for two more, which NumPy or the allocator may need now and then.
WORKER_CALLS = 17
# Of guarded files a thread looks out for the daemon's word: one call to begin with it, and one to end. Under strace a
# round takes so long that the thread may end and begin anew a few times, which is some dozen calls each.
LISTENING_CALLS = 2
THREADS_CALLS = 100
# The daemon's: wait, accept, who it is, the request, a fresh description of each descriptor, the grant, and the end.
DAEMON_CALLS = 20
MODELS = {"few": 10, "many": 5_000, "big": 10, "file": 10}
BIG = 1 << 20

ATTACHES = """
import sys
import mapcell
for _ in range(3):
    mapcell.attach(sys.argv[1], daemon="require").close()
print("warm", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    mapcell.attach(sys.argv[1], daemon="require").close()
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that holds a model of few tensors, one of many, and a big one."""
    folder = tmp_path_factory.mktemp("counts")
    with DaemonProcess() as running, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        for name, tensors in MODELS.items():
            size = BIG if name == "big" else 4
            path = write_safetensors(
                folder / f"{name}.safetensors", {f"t{n}": np.full(size, n, np.float32) for n in range(tensors)}
            )
            residence = "mapped" if name == "file" else "sealed"
            attach_path(
                str(path), dtype=None, keys=None, prefix="", mode="r", timeout=60, name=name, residence=residence
            ).close()
        eventually(lambda: daemon_status().leases == 0)
        yield running


def traced(*arguments: str) -> list[str]:
    """A command that runs under strace. Skips where there is none, or tracing is forbidden."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: system calls cannot be counted")
    if subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let processes be traced")
    return [strace, "-f", "-qq", "-s", "0", *arguments]


def calls(trace: Path) -> Counter[str]:
    """How often each system call was begun."""
    return Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


def worker(daemon: DaemonProcess, command: list[str], name: str, rounds: int) -> subprocess.Popen[str]:
    """A process that attached thrice and will attach `rounds` times more."""
    process = subprocess.Popen(
        [*command, sys.executable, "-c", ATTACHES, name, str(rounds)],
        env=daemon.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "warm\n"
    return process


def run_on(process: subprocess.Popen[str]) -> None:
    """Has it attach, and waits until it did."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize("name", MODELS)
def test_system_calls_of_a_worker(daemon: DaemonProcess, tmp_path: Path, name: str) -> None:
    """A warm attach and its end are 15 system calls, whatever the number of tensors and bytes; 17 of a guarded file."""
    counted = []
    for rounds in (0, ROUNDS):
        trace = tmp_path / f"trace-{rounds}"
        process = worker(daemon, traced("-o", str(trace)), name, rounds)
        run_on(process)
        process.communicate("\n", timeout=30)
        counted.append(calls(trace))
    more = counted[1] - counted[0]
    most = WORKER_CALLS * ROUNDS + (LISTENING_CALLS * ROUNDS + THREADS_CALLS if name == "file" else 0)
    # Who waits for the interpreter's lock is chance.
    assert more.total() - more["futex"] <= most, more
    # That thread is not told of each lease's end.
    assert more["write"] <= ROUNDS // 4, more
    # Nobody is polled for, and nobody is asked twice.
    assert more["poll"] <= 2
    assert (more["connect"], more["socket"], more["recvmsg"]) == (ROUNDS, ROUNDS, ROUNDS)


@pytest.mark.parametrize("name", MODELS)
def test_system_calls_of_the_daemon(daemon: DaemonProcess, tmp_path: Path, name: str) -> None:
    """So are those of the daemon."""
    process = worker(daemon, [], name, ROUNDS)
    trace = tmp_path / "trace"
    tracer = subprocess.Popen(traced("-o", str(trace), "-p", str(daemon.pid)))
    try:
        eventually(lambda: f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{daemon.pid}/status").read_text())
        run_on(process)
        eventually(lambda: calls(trace)["accept4"] >= ROUNDS)
        counted = calls(trace)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
        process.communicate("\n", timeout=30)
    # The daemon sweeps once a second, which takes a few calls whatever is attached.
    for call in ("accept4", "sendmsg"):
        assert counted[call] == ROUNDS, counted
    assert counted.total() <= DAEMON_CALLS * ROUNDS + 200, counted


DESCRIPTORS = """
import json, os, sys, threading
import mapcell

def figures():
    read = dict(line.split(": ") for line in open("/proc/self/io"))
    return len(os.listdir("/proc/self/fd")), int(read["rchar"])

mapcell.attach(sys.argv[1], daemon="require").close()
before = figures()
held = [mapcell.attach(sys.argv[1], daemon="require") for _ in range(10)]
after = figures()
total = sum(float(held[0][n].sum()) for n in held[0])
touched = figures()
heavy = sorted({"zmq", "psutil", "pathlib", "dataclasses", "asyncio"} & sys.modules.keys())
print(json.dumps([after[0] - before[0], after[1] - before[1], touched[1] - after[1], threading.active_count(), heavy]))
"""


@pytest.mark.parametrize(("name", "each", "manifest"), [("few", 2, 4096), ("big", 1, 4096), ("many", 3, 1 << 20)])
def test_descriptors_and_bytes(daemon: DaemonProcess, name: str, each: int, manifest: int) -> None:
    """A lease is a descriptor; so is Python's map of a segment, unless it is large and put in a place; and a manifest,
    unless it is small and read at once. No byte of the model is read."""
    command = [sys.executable, "-c", DESCRIPTORS, name]
    ran = subprocess.run(command, env=daemon.env(), capture_output=True, text=True, check=True, timeout=60)
    descriptors, read, touched, threads, heavy = json.loads(ran.stdout)
    assert descriptors == each * 10
    # Of 40 MiB, or of 5,000 entries: manifests that are small, the heads of others, and what /proc/self/io itself is.
    assert read < 4096 * 11
    # All entries of one are read once, if they were not before.
    assert touched < manifest
    assert threads == 1
    assert heavy == []


def test_a_long_request_goes_by_ticket(daemon: DaemonProcess) -> None:
    """More names than a message of the handle channel holds are asked for over the control channel."""
    prefix = "x" * 400
    names = [*(f"t{n}" for n in range(5)), *(prefix + str(n) for n in range(400))]
    before = daemon_status().attaches
    with mapcell.attach("few", keys=[n for n in names if not n.startswith(prefix)], daemon="require") as short:
        assert len(short) == 5
    with pytest.raises(LookupError, match="no tensor"):
        mapcell.attach("few", keys=names, daemon="require")
    assert daemon_status().attaches == before + 2


def test_a_daemon_that_hangs(daemon: DaemonProcess) -> None:
    """A daemon that is there and answers nobody is one that is not available, not one that takes long."""
    with mapcell.attach("few", daemon="require"):
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DaemonUnavailable, match="gave no answer"):
                mapcell.attach("few", daemon="require", timeout=0.2)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    with mapcell.attach("few", daemon="require") as again:
        assert len(again) == 10
