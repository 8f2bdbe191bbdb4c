"""How long a writer waits for a guarded file, next to what copying as many bytes in memory takes.

    python bench/guard_delay.py [--mib 1 16 256] [--workers 4] [--rounds 5] [--cold]

One daemon; `--workers` processes map the model and wait. The writer opens the file for writing and closes it; what is
measured is that open(2). The ways take turns: "unguarded" (nobody maps it), "memcpy" (as many bytes in this process)
and "guarded". With `--cold` the page cache is given back before the writer comes.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import MIB, Row, folder, parser, private_daemon, row, run, summary
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell.daemon_backend import attach_path
from mapcell_formats.messages import Unload
from models import Shape, safetensors_file
from support.daemon import DaemonProcess
from support.guarding import Worker

TENSORS = 4


def opened(path: Path) -> float:
    """Seconds that opening the file for writing takes."""
    began = time.perf_counter()
    os.close(os.open(path, os.O_WRONLY))
    return time.perf_counter() - began


def copied(nbytes: int) -> float:
    """Seconds that copying so many bytes takes, from pages that are there to pages that are."""
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    began = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - began


@contextlib.contextmanager
def mapped(path: Path, workers: list[Worker]) -> Iterator[None]:
    """The file, mapped and guarded, and held by every worker."""
    held = attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=600, name="m", residence="mapped")
    try:
        for worker in workers:
            worker.tell("rest")
            worker.tell("attach", "m", 0)
        yield
    finally:
        for worker in workers:
            worker.tell("drop", "m")
        held.close()
        del held
        gc.collect()
        CONNECTIONS.client().ask(Unload("m"), 60, repeat=False)
        while daemon_status().sealed:
            time.sleep(0.01)


def cooled(path: Path, cold: bool) -> None:
    """Gives the file's page cache back, or brings it there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if cold:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while os.read(fd, 16 * MIB):
                continue
    finally:
        os.close(fd)


def measure_one(path: Path, workers: list[Worker], options: argparse.Namespace) -> dict[str, list[float]]:
    """The three ways, in turns."""
    seconds: dict[str, list[float]] = {"unguarded": [], "memcpy": [], "guarded": []}
    nbytes = path.stat().st_size
    for _ in range(options.rounds):
        seconds["unguarded"].append(opened(path))
        seconds["memcpy"].append(copied(nbytes))
        with mapped(path, workers):
            cooled(path, options.cold)
            seconds["guarded"].append(opened(path))
    return seconds


def measure(options: argparse.Namespace) -> list[Row]:
    """Every size."""
    rows: list[Row] = []
    with folder(options.folder) as place, deadline(place) as daemon:
        workers = [Worker(daemon.env()) for _ in range(options.workers)]
        try:
            for mib in options.mib:
                shape = Shape(TENSORS, mib * MIB)
                path = safetensors_file(place / f"{mib}.safetensors", shape, filled=True)
                case = {"bytes": path.stat().st_size, "workers": options.workers, "cold": options.cold}
                for way, found in measure_one(path, workers, options).items():
                    rate = round(path.stat().st_size / sorted(found)[len(found) // 2])
                    rows.append(row(case, way, seconds=summary(found), bytes_per_second=rate))
                path.unlink()
        finally:
            for worker in workers:
                worker.close()
    return rows


@contextlib.contextmanager
def deadline(place: Path) -> Iterator[DaemonProcess]:
    """A daemon whose writers wait as long as the kernel lets them: the largest files take seconds."""
    config = place / "mapcelld.toml"
    config.write_text('guard_deadline = "40s"\nbudget = "1TiB"\n')
    with private_daemon("--config", str(config)) as daemon:
        yield daemon


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--mib", type=int, nargs="+", default=[1, 16, 256], help="sizes of the file")
    arguments.add_argument("--workers", type=int, default=4, help="processes that map it")
    arguments.add_argument("--rounds", type=int, default=5, help="how often each way is measured")
    arguments.add_argument("--cold", action="store_true", help="without the file in the page cache")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
