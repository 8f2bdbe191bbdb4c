"""How long attaching one model takes while another is staged, against when nothing is.

    python bench/attach_while_staging.py [--gib 2] [--rounds 3] [--out FILE]

One daemon; one client process attaches a small model over and over, looks at one element and closes, first alone, then
while another process has a checkpoint of `--gib` GiB staged. The rounds alternate in one run, so that both kinds meet
the same machine. Prints JSON: milliseconds at the median and the 99th percentile of each, and their ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mapcell
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell_formats.messages import Unload
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

TENSOR = 64 << 20
# Alone this many are measured in a round; while something is staged, as many as fit.
IDLE = 2_000

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


def measure_idle() -> list[float]:
    """Attaching while nothing else happens."""
    return [attach_once() for _ in range(IDLE)]


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


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds at the median, the 99th percentile and at most."""
    return {
        "count": len(seconds),
        **{f"p{p}_ms": round(float(np.percentile(seconds, p)) * 1e3, 3) for p in (50, 99)},
        "max_ms": round(max(seconds) * 1e3, 3),
    }


def run(gib: float, rounds: int) -> dict[str, Any]:
    """The whole measurement."""
    with tempfile.TemporaryDirectory(prefix="mcb", dir="/tmp") as folder, DaemonProcess() as daemon:
        os.environ["MAPCELL_RUNTIME"] = str(daemon.runtime)
        small = write_safetensors(Path(folder) / "small.safetensors", {"t": np.arange(1000, dtype=np.float32)})
        values = np.random.default_rng(0).standard_normal(TENSOR // 4, np.float32)
        tensors = {f"t{i}": values for i in range(int(gib * (1 << 30)) // TENSOR)}
        big = write_safetensors(Path(folder) / "big.safetensors", tensors)
        del tensors, values
        from mapcell.daemon_backend import attach_path

        attach_path(str(small), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="small")
        measure_idle()
        gc.collect()
        idle: list[float] = []
        staging: list[float] = []
        took = []
        for _ in range(rounds):
            idle += measure_idle()
            found, seconds = measure_staging(big)
            staging += found
            took.append(round(seconds, 2))
        mapcell.disconnect()
    result = {"gib": gib, "cores": os.cpu_count(), "idle": percentiles(idle), "staging": percentiles(staging)}
    ratio = result["staging"]["p99_ms"] / result["idle"]["p99_ms"]
    return {**result, "p99_ratio": round(ratio, 2), "staging_seconds": took}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="size of what is staged")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured")
    parser.add_argument("--out", type=Path, help="where the JSON goes besides")
    arguments = parser.parse_args()
    text = json.dumps(run(arguments.gib, arguments.rounds), indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
