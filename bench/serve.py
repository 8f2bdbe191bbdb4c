"""How many attaches a second one daemon serves, and what each costs it: clients that attach and let go.

    python bench/serve.py [--clients 1 4 16 64 256] [--seconds 2] [--models 16]

Clients are processes forked from one that has everything imported; each attaches to one of the models by name, has one
tensor, closes, and starts anew. Per case: attaches a second, latency at the median and the 99th percentile, the
processor time that the daemon and its helpers used for each, and how much its memory grew. The inverse of `daemon_cpu`
is what one core that does nothing else could serve: on a machine with few cores the clients take most of them.

    mapcell                  as above
    mapcell, while staging   the same while another process has a model staged, over and over
    safetensors numpy        safe_open, get_tensor of one tensor: no daemon, the file read in each process
    shared_memory            multiprocessing.shared_memory by name, one array
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import MIB, Row, explained, failure, folder, parser, private_daemon, row, run, summary
from mapcell.daemon_backend import attach_path
from models import Shape, safetensors_file
from support.proc import children

_MODEL = Shape(100, 4 * MIB)
_NAME = _MODEL.names()[50]
_TICK = os.sysconf("SC_CLK_TCK")
# Between the fork of the last client and the moment at which all begin.
_GATHER_SECONDS = 0.3
_EACH_SECONDS = 0.015

STAGE = """
import sys
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.messages import Unload
while True:
    attach_path(sys.argv[1], dtype=None, keys=None, prefix="", mode="r", timeout=600, name="big", residence="sealed").close()
    CONNECTIONS.client().ask(Unload("big"), 10, repeat=False)
"""  # noqa: E501


def processor_seconds(pid: int) -> float:
    """User and system time of the daemon and its spawner, with that of stagers that ended."""
    total = 0.0
    for each in (pid, *children(pid)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / _TICK
    return total


def private_bytes(pid: int) -> int:
    """What the daemon has resident of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def client(repetition: Callable[[int], object], number: int, begin: float, end: float, out: int) -> None:
    """One client's life; writes its latencies as JSON."""
    gc.disable()
    # Connections are made once: what is measured is serving those that are there.
    repetition(number)
    time.sleep(max(begin - time.monotonic(), 0))
    found = []
    while (began := time.perf_counter()) and time.monotonic() < end:
        repetition(number)
        found.append(round((time.perf_counter() - began) * 1e6))
    with os.fdopen(out, "wb") as pipe:
        pipe.write(json.dumps(found).encode())


def crowd(repetition: Callable[[int], object], count: int, seconds: float) -> tuple[list[float], float]:
    """The latencies of `count` clients together, in seconds, and how long they worked. RuntimeError when one fails."""
    readers, pids = [], []
    begin = time.monotonic() + _GATHER_SECONDS + count * _EACH_SECONDS
    for number in range(count):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reading)
                client(repetition, number, begin, begin + seconds, writing)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        readers.append(reading)
        pids.append(pid)
    found: list[float] = []
    for reading in readers:
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        found += [us / 1e6 for us in json.loads(text or b"[]")]
    took = time.monotonic() - begin
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(statuses):
        raise RuntimeError(f"{sum(map(bool, statuses))} of {count} clients failed; their messages are on stderr")
    return found, took


def attaching(models: int) -> Callable[[int], object]:
    """Attaches to one of the models and lets go."""

    def repetition(number: int) -> object:
        with mapcell.attach(f"model-{number % models}", daemon="require") as weights:
            return weights[_NAME].shape

    return repetition


def opening(path: Path) -> Callable[[int], object]:
    """Opens the file and has one tensor."""
    from safetensors import safe_open

    def repetition(number: int) -> object:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(_NAME).shape

    return repetition


@contextlib.contextmanager
def blocked() -> Iterator[Callable[[int], object]]:
    """Opens a block of shared memory, has one array and lets go."""
    owner = SharedMemory(create=True, size=_MODEL.nbytes)

    def repetition(number: int) -> object:
        block = SharedMemory(name=owner.name)
        array = np.ndarray(_MODEL.each, np.float32, block.buf)
        shape = array.shape
        del array
        block.close()
        return shape

    try:
        yield repetition
    finally:
        owner.close()
        owner.unlink()


@contextlib.contextmanager
def staging(place: Path, mib: int) -> Iterator[None]:
    """Has a model staged over and over by another process."""
    path = safetensors_file(place / "big.safetensors", Shape(16, mib * MIB), filled=True)
    process = subprocess.Popen([sys.executable, "-c", STAGE, str(path)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while not mapcell.daemon_status().staging and time.monotonic() < until:
            time.sleep(0.005)
        mapcell.disconnect()
        yield
    finally:
        process.kill()
        process.wait()


def with_daemon(count: int, options: argparse.Namespace, pid: int) -> dict[str, Any]:
    """One case: figures of the clients, and of the daemon."""
    cpu, memory = processor_seconds(pid), private_bytes(pid)
    found, took = crowd(attaching(options.models), count, options.seconds)
    used = processor_seconds(pid) - cpu
    return {
        "seconds": summary(found),
        "per_second": round(len(found) / took, 1),
        "daemon_cpu": round(used / len(found), 9),
        "daemon_share": round(used / took, 3),
        "daemon_grew": private_bytes(pid) - memory,
    }


def without(count: int, repetition: Callable[[int], object], options: argparse.Namespace) -> dict[str, Any]:
    """One case of a peer."""
    found, took = crowd(repetition, count, options.seconds)
    return {"seconds": summary(found), "per_second": round(len(found) / took, 1)}


def measured(case: dict[str, object], way: str, figures: Callable[[], dict[str, Any]]) -> Row:
    """The row of one way in one case."""
    try:
        return row(case, way, **figures())
    except Exception as exc:
        # A way that cannot serve so many is what there is to report.
        return failure(case, way, explained(exc))


def measure(options: argparse.Namespace) -> list[Row]:
    """Every number of clients, the ways in turns."""
    _allow_descriptors()
    rows: list[Row] = []
    with folder(options.folder) as place, private_daemon() as daemon, blocked() as block:
        for number in range(options.models):
            path = safetensors_file(place / f"{number}.safetensors", _MODEL, filled=True)
            attach_path(
                str(path), dtype=None, keys=None, prefix="", mode="r", timeout=60, name=f"model-{number}",
                residence="sealed",
            )  # fmt: skip
        attaching(options.models)(0)
        peers: dict[str, Callable[[int], object]] = {"safetensors numpy": opening(path), "shared_memory": block}
        with_daemon(1, options, daemon.pid)
        for count in options.clients:
            case: dict[str, object] = {"clients": count, "models": options.models}
            # Forked clients have none of our connections.
            mapcell.disconnect()
            rows.append(measured(case, "mapcell", partial(with_daemon, count, options, daemon.pid)))
            for way, repetition in peers.items():
                rows.append(measured(case, way, partial(without, count, repetition, options)))
        for count in options.clients[:: max(len(options.clients) - 1, 1)]:
            with staging(place, options.staged):
                case = {"clients": count, "models": options.models}
                rows.append(measured(case, "mapcell, while staging", partial(with_daemon, count, options, daemon.pid)))
    return rows


def _allow_descriptors() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    arguments.add_argument("--seconds", type=float, default=2.0, help="how long each case is")
    arguments.add_argument("--models", type=int, default=16)
    arguments.add_argument("--staged", type=int, default=256, help="MiB of the model that is staged meanwhile")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
