"""Programs that tests run where the daemon is, as `python -m support.clients PROGRAM ARGUMENTS`; each prints JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import random
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

import mapcell
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell.daemon_backend import attach_path
from mapcell.leasing import close_all, redeem
from mapcell_formats import wire
from mapcell_formats.errors import DaemonUnavailable, MapcellError, NotFound
from mapcell_formats.messages import (
    HANDOUTS,
    MAX_HANDLE_BYTES,
    TICKET_BYTES,
    Attach,
    Evict,
    GetStatus,
    ListModels,
    Redeem,
    Refused,
    Status,
    Unload,
)
from support.proc import children, eventually, memory_files
from support.raw import ask

_SIDE = 256
_PATIENCE = 60.0


def load(name: str, path: str, residence: str) -> dict[str, Any]:
    """Loads `path` under `name`: its version, residence and checksum."""
    with attach_path(path, dtype=None, keys=None, prefix="", mode="r", timeout=60, name=name,
                     residence=residence) as weights:  # fmt: skip
        return {"version": weights.version, "residence": weights.residence, "sum": checksum(weights)}


def check(name: str) -> int:
    """The checksum of model `name`."""
    with mapcell.attach(name, daemon="require", timeout=_PATIENCE) as weights:
        return checksum(weights)


def work(names: str, stop: str, expected: str) -> dict[str, Any]:
    """Computes with the models `names` and attaches them anew until the file `stop` is there; what went wrong."""
    sums = dict(zip(names.split(","), map(int, expected.split(",")), strict=True))
    held = {name: mapcell.attach(name, daemon="require", timeout=_PATIENCE) for name in sums}
    x = np.linspace(-1, 1, _SIDE, dtype=np.float32)
    first = {name: _product(weights, x) for name, weights in held.items()}
    rounds, wrong, errors = 0, 0, []
    print("computing", flush=True)
    while not Path(stop).exists():
        rounds += 1
        for name, weights in held.items():
            wrong += _product(weights, x) != first[name] or (rounds % 20 == 0 and checksum(weights) != sums[name])
        try:
            with mapcell.attach(random.choice(list(sums)), daemon="require", timeout=_PATIENCE) as again:
                wrong += _product(again, x) != first[again.name]
        # Whatever it is: the test says that a worker sees none.
        except Exception as exc:
            errors.append(f"{type(exc).__name__}: {exc}")
        time.sleep(0.01)
    return {"rounds": rounds, "wrong": wrong, "errors": errors}


def hold(name: str, go: str) -> dict[str, int]:
    """Views all of model `name`, says its pid, and waits for the file `go`: the checksums from before and after."""
    weights = mapcell.attach(name, daemon="require", timeout=_PATIENCE)
    before = checksum(weights)
    views = [weights[n] for n in weights]
    print(os.getpid(), flush=True)
    eventually(Path(go).exists, _PATIENCE)
    return {"before": before, "after": checksum(weights), "views": len(views)}


def attachers(name: str, stop: str) -> dict[str, Any]:
    """Attaches and lets go until the file `stop` is there: how often, what failed, and the longest wait in seconds."""
    count, longest, errors = 0, 0.0, []
    while not Path(stop).exists():
        began = time.monotonic()
        try:
            with mapcell.attach(name, daemon="require", timeout=_PATIENCE) as weights:
                assert len(weights) > 0
        # Whatever it is: the test says that none fails.
        except Exception as exc:
            errors.append(f"{type(exc).__name__}: {exc}")
        count += 1
        longest = max(longest, time.monotonic() - began)
    return {"count": count, "longest": longest, "errors": errors}


def kills(names: str, rounds: str) -> list[dict[str, Any]]:
    """Kills the daemon `rounds` times: seconds until all of `names` are served again, and what its processes read."""
    done = []
    for _ in range(int(rounds)):
        before = daemon_status(timeout=_PATIENCE).pid
        began = time.monotonic()
        os.kill(before, signal.SIGKILL)
        for name in names.split(","):
            with mapcell.attach(name, daemon="require", timeout=_PATIENCE) as weights:
                assert weights.backend == "daemon"
        seconds = time.monotonic() - began
        pid = daemon_status(timeout=_PATIENCE).pid
        assert pid != before
        done.append({"seconds": seconds, "read": read_by(pid)})
        time.sleep(0.2)
    return done


def churn(name: str, path: str, rounds: str, seed: str) -> dict[str, Any]:
    """Loads and evicts `path` over and over while the daemon is killed at moments of its own choosing.

    What failed as anything but a daemon that went away, and the checksums of what each next daemon had.
    """
    chance = random.Random(int(seed))
    errors: list[str] = []
    sums = []
    for _ in range(int(rounds)):
        killed = _kill_later(daemon_status(timeout=_PATIENCE).pid, chance.uniform(0, 0.12))
        for action in itertools.cycle((lambda: load(name, path, "sealed"), lambda: _evict(name))):
            if killed():
                break
            try:
                action()
            except (DaemonUnavailable, NotFound):
                continue
            except MapcellError as exc:
                errors.append(f"{type(exc).__name__}: {exc}")
        rows = CONNECTIONS.client(time.monotonic() + _PATIENCE).ask(ListModels(), _PATIENCE).rows
        sums.append([check(row.name) for row in rows])
    return {"errors": errors, "sums": sums}


def _kill_later(pid: int, seconds: float) -> Callable[[], bool]:
    """Has `pid` killed after `seconds`; what comes back tells whether it was."""
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    return lambda: os.waitpid(child, os.WNOHANG) != (0, 0)


def drop(name: str) -> list[str]:
    """Unloads model `name` if it is there: the models that are left."""
    with contextlib.suppress(NotFound):
        CONNECTIONS.client().ask(Unload(name), _PATIENCE, repeat=False)
    return [r.name for r in CONNECTIONS.client().ask(ListModels(), _PATIENCE).rows]


def outlive(path: str) -> dict[str, int]:
    """What the daemon counts as sealed while a map outlives its lease, and after that map is gone."""
    attach_path(path, dtype=None, keys=None, prefix="", mode="r", timeout=60, name="o", residence="sealed").close()
    client = CONNECTIONS.client()
    ticket = client.ask(Attach("o"), _PATIENCE)
    grant, fds, sock = redeem(client, ticket, (), time.monotonic() + _PATIENCE, None)
    held = mmap.mmap(fds[1], grant.segments[0], mmap.MAP_SHARED, mmap.PROT_READ)
    close_all(fds)
    sock.close()
    client.ask(Unload("o"), _PATIENCE, repeat=False)
    # Longer than the daemon takes to ask the kernel again.
    time.sleep(2.5)
    mapped = daemon_status().sealed
    held.close()
    eventually(lambda: daemon_status().sealed == 0)
    return {"mapped": mapped, "closed": daemon_status().sealed}


def segments() -> int:
    """Bytes of segments that any process still holds, the manager included."""
    return sum(memory_files(int(p) for p in os.listdir("/proc") if p.isdigit()).values())


def knock_control() -> dict[str, int]:
    """Who answers a question that is put to the control socket alone."""
    status = ask(Path(os.environ["MAPCELL_RUNTIME"]), GetStatus())
    assert isinstance(status, Status)
    return {"pid": status.pid}


def knock_handles() -> dict[str, int]:
    """Who answers a redemption that is put to the handle socket alone: it refuses the ticket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(f"{os.environ['MAPCELL_RUNTIME']}/handles.sock")
        sock.send(wire.encode(Redeem(bytes(TICKET_BYTES))))
        _, refused = wire.decode(sock.recv(MAX_HANDLE_BYTES), HANDOUTS)
    assert isinstance(refused, Refused), refused
    return knock_control()


def scrape(unix: str, loopback: str, textfile: str) -> list[dict[str, float]]:
    """Every sample without labels, as a Prometheus parser reads it from each of the three outputs."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(unix)
        over_unix = _got(sock)
    host, _, port = loopback.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        over_tcp = _got(sock)
    texts = [over_unix, over_tcp, Path(textfile).read_text()]
    return [
        {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples if not s.labels}
        for text in texts
    ]


def _got(sock: socket.socket) -> str:
    sock.settimeout(10)
    sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    with sock.makefile("rb") as answer:
        head, _, body = answer.read().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK"), head
    return body


def read_by(daemon: int) -> int:
    """Bytes that the daemon and every process that it started have read by system calls so far."""
    found = [daemon, *children(daemon), *(s for c in children(daemon) for s in children(c))]
    return sum(int(Path(f"/proc/{pid}/io").read_text().split()[1]) for pid in found)


def status() -> dict[str, Any]:
    """The daemon's figures, and what its processes read until they had started everything that they start."""
    now = daemon_status(timeout=_PATIENCE)
    before = -1
    while (read := read_by(now.pid)) != before:
        before = read
        time.sleep(0.5)
    return {"pid": now.pid, "models": now.models, "sealed": now.sealed, "read": read}


def checksum(weights: mapcell.Weights) -> int:
    """One number for all bytes of `weights`."""
    total = 0
    for name in sorted(weights):
        total = zlib.crc32(np.ascontiguousarray(weights[name]).view(np.uint8).reshape(-1), total)
    return total


def _evict(name: str) -> None:
    CONNECTIONS.client().ask(Evict(name), 5)


def _product(weights: mapcell.Weights, x: Any) -> bytes:
    w = weights[next(iter(weights))].reshape(-1)[: _SIDE * _SIDE].reshape(_SIDE, _SIDE)
    return bytes((w @ x).tobytes())


_KNOWN: tuple[Callable[..., Any], ...] = (
    *(load, check, drop, status, segments, scrape, outlive),
    *(work, hold, attachers, kills, churn, knock_control, knock_handles),
)
_PROGRAMS = {program.__name__: program for program in _KNOWN}

if __name__ == "__main__":
    print(json.dumps(_PROGRAMS[sys.argv[1]](*sys.argv[2:])))
