"""How long attaching one model takes while another is staged, against when nothing is.

    python bench/attach_while_staging.py [--gib 2] [--rounds 3]

One daemon; one client process attaches a small model over and over, looks at one element and closes, first alone, then
while another process has a checkpoint of `--gib` GiB staged. The rounds alternate in one run, so that both kinds meet
the same machine.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import mapcell
from common import MIB, Row, folder, parser, private_daemon, row, run, summary
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell.daemon_backend import attach_path
from mapcell_formats.messages import Unload
from models import Shape, safetensors_file
from support.checkpoints import write_safetensors

TENSOR_MIB = 64

STAGE = """
import sys, time
from mapcell.daemon_backend import attach_path
began = time.monotonic()
attach_path(sys.argv[1], dtype=None, keys=None, prefix="", mode="r", timeout=600, name="big", residence="sealed")
print(time.monotonic() - began)
"""


def attach_once() -> float:
    """Seconds from the question to the first element."""
    began = time.perf_counter()
    with mapcell.attach("small") as weights:
        assert weights["t"][7] == 7
    return time.perf_counter() - began


def measure_idle(count: int) -> list[float]:
    """Attaching while nothing else happens."""
    return [attach_once() for _ in range(count)]


def measure_staging(path: Path) -> tuple[list[float], float]:
    """Attaching while `path` is staged by another process, and how long that took."""
    with subprocess.Popen([sys.executable, "-c", STAGE, str(path)], stdout=subprocess.PIPE, text=True) as stager:
        # Its interpreter starts before anything is staged: that is not what is measured.
        while not daemon_status().staging and stager.poll() is None:
            time.sleep(0.001)
        seconds = []
        while stager.poll() is None and daemon_status().stagers:
            seconds += [attach_once() for _ in range(20)]
        assert stager.stdout is not None
        took = float(stager.stdout.read())
    assert stager.returncode == 0
    CONNECTIONS.client().ask(Unload("big"), 10, repeat=False)
    while daemon_status().sealed > 1 << 20:
        time.sleep(0.01)
    return seconds, took


def measure(options: argparse.Namespace) -> list[Row]:
    """Both, in turns."""
    mib = max(int(options.gib * 1024), TENSOR_MIB)
    idle: list[float] = []
    staging: list[float] = []
    took: list[float] = []
    with folder(options.folder) as place, private_daemon():
        small = write_safetensors(place / "small.safetensors", {"t": np.arange(1000, dtype=np.float32)})
        big = safetensors_file(place / "big.safetensors", Shape(mib // TENSOR_MIB, mib * MIB), filled=True)
        attach_path(str(small), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="small").close()
        measure_idle(options.idle)
        gc.collect()
        for _ in range(options.rounds):
            idle += measure_idle(options.idle)
            found, seconds = measure_staging(big)
            staging += found
            took.append(seconds)
    case: dict[str, object] = {"mib": mib}
    return [
        row({**case, "daemon": "idle"}, "mapcell", seconds=summary(idle)),
        row({**case, "daemon": "staging"}, "mapcell", seconds=summary(staging), staging=summary(took)),
    ]


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--gib", type=float, default=2.0, help="size of what is staged")
    arguments.add_argument("--idle", type=int, default=2000, help="attaches in a round while nothing is staged")
    arguments.add_argument("--rounds", type=int, default=3, help="how often both are measured")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
