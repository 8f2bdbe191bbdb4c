"""Whether attaching very often leaves anything behind: memory, descriptors and processor time as the count grows.

    python bench/many_attaches.py [--attaches 1000000] [--steps 10]

One process attaches to a model of 100 tensors, has one of them, and lets go, over and over. At each step: what the
daemon and the process have resident of their own, how many descriptors the daemon has open, and the processor time that
it used for each attach since the step before. The first step shows what warming up takes.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import mapcell
from common import MIB, Row, folder, parser, private_daemon, row, run
from mapcell.daemon_backend import attach_path
from models import Shape, safetensors_file
from serve import private_bytes, processor_seconds

_MODEL = Shape(100, 4 * MIB)
_NAME = _MODEL.names()[50]


def attach(count: int) -> None:
    """So many times."""
    for _ in range(count):
        with mapcell.attach("model", daemon="require") as weights:
            weights[_NAME]


def descriptors(pid: int) -> int:
    """How many the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def measure(options: argparse.Namespace) -> list[Row]:
    """Step by step."""
    rows: list[Row] = []
    with folder(options.folder) as place, private_daemon() as daemon:
        path: Path = safetensors_file(place / "model.safetensors", _MODEL, filled=True)
        attach_path(
            str(path), dtype=None, keys=None, prefix="", mode="r", timeout=60, name="model", residence="sealed"
        ).close()
        each, done = options.attaches // options.steps, 0
        # A hundredth of it first, which is for whatever is made once.
        for count in (max(each // 10, 1), *[each] * options.steps):
            used, began = processor_seconds(daemon.pid), time.monotonic()
            attach(count)
            took, done = time.monotonic() - began, done + count
            figures = {
                "daemon": private_bytes(daemon.pid),
                "worker": private_bytes(os.getpid()),
                "descriptors": descriptors(daemon.pid),
                "daemon_cpu": round((processor_seconds(daemon.pid) - used) / count, 9),
                "per_second": round(count / took, 1),
            }
            rows.append(row({"attaches": done}, "mapcell", **figures))
    return rows


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--attaches", type=int, default=1_000_000)
    arguments.add_argument("--steps", type=int, default=10)
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
