"""Thousands of leases at once: one descriptor each, little memory, and all of it back when they end.

MAPCELL_TEST_LEASES says how many (1,000 unless set; 10,000 need a hard limit of 16,384 descriptors). The figures are
printed: `pytest -rP` shows them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mapcell
from mapcell.connection import daemon_status
from support.daemon import DaemonProcess
from support.models import load, looked_at, number_of, write_model
from support.proc import eventually

LEASES = int(os.environ.get("MAPCELL_TEST_LEASES", "1000"))
CLIENTS = 4
# What the design allows the daemon for each; a page of noise is spread over all of them.
GOAL = 4096

CLIENT = """
import os, resource, socket, sys
from pathlib import Path
import zmq
from mapcell_formats import messages, wire
from support.raw import connect, hear, redeem
runtime, count = Path(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
with zmq.Context() as context, context.socket(zmq.DEALER) as control:
    control.connect(f"ipc://{runtime}/control.sock")
    for number in range(1, count + 1):
        control.send(wire.encode(messages.Attach("m"), number))
        sock = connect(runtime)
        redeem(sock, wire.decode(control.recv(), messages.REPLIES)[1])
        grant, fds = hear(sock)
        assert isinstance(grant, messages.Grant), grant
        for fd in fds:
            os.close(fd)
        held.append(sock)
print(len(held), flush=True)
sys.stdin.read()
"""


def resident(pid: int) -> int:
    """Bytes of private memory that a process has resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def start(daemon: DaemonProcess, count: int) -> subprocess.Popen[str]:
    """A process that takes `count` leases and holds them until its standard input ends."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{CLIENT}", str(daemon.runtime)]
    return subprocess.Popen(
        [*command, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=daemon.env()
    )


def test_many_leases_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Every lease is granted, costs the daemon one descriptor and at most 4 KiB, and leaves nothing when it ends."""
    load(write_model(tmp_path / "m.safetensors", 1), "m").close()
    # What the first leases make the daemon import or allocate once is not theirs.
    with start(daemon, 50) as warming:
        assert warming.stdout is not None
        assert warming.stdout.readline() == "50\n"
        warming.communicate()
    eventually(lambda: daemon_status().leases == 0)
    looked_at()
    before, memory = daemon_status(), resident(daemon.pid)
    began = time.monotonic()
    share = LEASES // CLIENTS
    clients = [start(daemon, share) for _ in range(CLIENTS)]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == f"{share}\n"
        granted = time.monotonic()
        eventually(lambda: daemon_status().descriptors == before.descriptors + CLIENTS * share)
        during = daemon_status()
        assert (during.leases, during.connections) == (CLIENTS * share, CLIENTS * share)
        each = (resident(daemon.pid) - memory) / during.leases
        assert number_of(mapcell.attach("m")) == 1
    finally:
        ended = time.monotonic()
        for client in clients:
            client.communicate()
    eventually(lambda: daemon_status().leases == daemon_status().connections == 0, 60)
    eventually(lambda: daemon_status().descriptors == before.descriptors)
    figures = {
        "leases": during.leases,
        "bytes_each": round(each),
        "descriptors_each": 1,
        "granting_seconds": round(granted - began, 2),
        "ending_seconds": round(time.monotonic() - ended, 2),
    }
    print(json.dumps(figures))
    assert each <= GOAL
