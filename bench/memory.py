"""What N workers with one model hold in memory together, in each way to have the weights.

    python bench/memory.py [--workers 1 2 4 8] [--mib 1024] [--tensors 16]

Every worker has all weights and has read an element of every page; none has computed anything, since a matrix product
adds buffers that have nothing to do with weights. Workers of one way are added step by step, up to the largest number.
Figures, summed over the workers: Pss, private pages (uss), Rss, huge pages, page tables. `keeper` is the Pss of whoever
holds the weights for the others: the daemon, the parent that forked or shares. `host` is by how much MemAvailable went
down, which others on the machine change too. `group` is what a control group of their own was charged, where one can
be made (root, memory controller of cgroup v1 or v2).

    bare numpy, bare torch     the interpreter with that import: to be taken off the others
    mapcell                    a network bound to a lease; `huge pages` where there are some
    safetensors numpy          load_file: a copy in each process
    safetensors torch          load_file: a private map of the file
    torch share_memory_        one process loads and passes its tensors on
    fork after load            one process loads and forks

With `cast`, the file holds bfloat16 and the workers have float32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    BENCH,
    MIB,
    Row,
    explained,
    failure,
    folder,
    parser,
    private_daemon,
    row,
    run,
    worker_environment,
)
from control_group import ControlGroup, control_group
from mapcell.daemon_backend import attach_path
from mapcell.demo.measure import family, memory_available, memory_of
from models import Shape, safetensors_file
from support.proc import eventually, stagers

# Copies are not made when they would take more of what is available than this.
_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Way:
    """How workers of one way are started: `task` is memory_worker's name for it."""

    task: str
    parent: bool = False
    copies: bool = False
    casts: bool = False
    daemon: str = ""


WAYS = {
    "bare numpy": Way("bare"),
    "bare torch": Way("bare torch"),
    "mapcell": Way("mapcell", daemon="off"),
    "mapcell, huge pages": Way("mapcell", daemon="try"),
    "safetensors numpy": Way("private", copies=True),
    "safetensors torch": Way("mapped", casts=True),
    "torch share_memory_": Way("shared", parent=True),
    "fork after load": Way("forked", parent=True),
}


class Crew:
    """The workers of one way, started one after the other and ended together."""

    def __init__(self, way: Way, task: dict[str, Any], group: ControlGroup | None) -> None:
        self._way = way
        self._task = task | {"way": way.task}
        self._group = group
        self._started: list[subprocess.Popen[str]] = []
        self._pids: list[int] = []

    def grow(self, count: int) -> list[int]:
        """The pids of `count` workers, all of which have their weights. RuntimeError with a failed one's last words."""
        if self._way.parent:
            parent = self._started[0] if self._started else self._start()
            assert parent.stdin is not None
            parent.stdin.write(f"{count}\n")
            parent.stdin.flush()
            self._pids = self._hear(parent)
            return self._pids
        fresh = [self._start() for _ in range(count - len(self._started))]
        for process in fresh:
            self._hear(process)
        return [process.pid for process in self._started]

    def parent(self) -> list[int]:
        """The process that holds the weights for the workers, if one of them does."""
        return [self._started[0].pid] if self._way.parent else []

    def end(self) -> None:
        """Ends all."""
        for process in self._started:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._started:
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(BENCH / "memory_worker.py"), json.dumps(self._task)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=worker_environment(1),
        )  # fmt: skip
        self._started.append(process)
        if self._group is not None:
            self._group.add(process.pid)
        return process

    def _hear(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise RuntimeError((process.stderr.read().strip().splitlines() or ["ended without a word"])[-1])
        return json.loads(line)


def page_tables(pid: int) -> int:
    """Bytes of the process's page tables."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPTE:"))


def figures(pids: Sequence[int], keepers: Sequence[int]) -> dict[str, int]:
    """What the workers hold together, and who holds for them."""
    held = [memory_of(pid) for pid in pids]
    return {
        "pss": sum(m.pss for m in held),
        "uss": sum(m.private for m in held),
        "rss": sum(m.rss for m in held),
        "hugetlb": sum(m.hugetlb for m in held),
        "page_tables": sum(map(page_tables, pids)),
        "keeper": sum(map(held_by, keepers)),
    }


@contextlib.contextmanager
def lender(way: Way, task: dict[str, Any], place: Path, group: ControlGroup | None) -> Iterator[list[int]]:
    """The daemon's processes, with the model sealed under the task's name; none for ways without one."""
    if not way.daemon:
        yield []
        return
    config = place / "mapcelld.toml"
    config.write_text(f'huge_pages = "{way.daemon}"\n')
    with private_daemon("--config", str(config)) as daemon:
        if group is not None:
            group.add(*family(daemon.pid))
        weights = attach_path(
            task["path"], dtype="F32" if task["dtype"] else None, keys=None, prefix="", mode="r", timeout=600,
            name=task["name"], residence="sealed",
        )  # fmt: skip
        weights.close()
        # What was cast on its way in bears the name; nobody has to ask for a cast again.
        task["dtype"] = None
        eventually(lambda: not stagers(daemon.pid))
        yield family(daemon.pid)


def held_by(pid: int) -> int:
    """The Pss of a process; nothing once it has ended, as the daemon's helpers do that look after files."""
    try:
        return memory_of(pid).pss
    except (FileNotFoundError, ProcessLookupError):
        return 0


def refuse(way: Way, workers: int, task: dict[str, Any]) -> None:
    """Raises MemoryError when the machine cannot hold so many copies beside what it has to do."""
    copies = way.copies or (way.casts and task["dtype"] is not None)
    needed = task["nbytes"] * (workers if copies else 2)
    if needed > memory_available() * _SHARE:
        raise MemoryError(f"{workers} workers would take {needed // MIB} MiB, more than this machine can spare")


def measure_way(
    name: str, task: dict[str, Any], case: dict[str, object], steps: Sequence[int], place: Path
) -> list[Row]:
    """One way, from the smallest number of workers to the largest."""
    way, rows = WAYS[name], []
    done: list[int] = []
    before = memory_available()
    try:
        refuse(way, 1, task)
        with control_group() as group, lender(way, asked := dict(task), place, group) as daemon:
            crew = Crew(way, asked, group)
            try:
                for count in steps:
                    refuse(way, count - len(done), task)
                    pids = crew.grow(count)
                    found = figures(pids, [*daemon, *crew.parent()])
                    host = before - memory_available()
                    charged = {} if group is None else {"group": group.usage()}
                    rows.append(row(case | {"workers": count}, name, **found, host=host, **charged))
                    done.append(count)
            finally:
                crew.end()
    except Exception as exc:
        # A peer that cannot do it at all, a machine that is too small: either is what there is to report.
        rows += [failure(case | {"workers": n}, name, explained(exc)) for n in steps if n not in done]
    return rows


def measure(options: argparse.Namespace) -> list[Row]:
    """Every way, with and without a cast."""
    rows: list[Row] = []
    steps = sorted(options.workers)
    names = [name for name in WAYS if options.only is None or name in options.only]
    with folder(options.folder) as place:
        for cast in (False, True):
            shape = Shape(options.tensors, options.mib * MIB // (2 if cast else 1), 2 if cast else 4)
            path = safetensors_file(
                place / f"cast-{cast}.safetensors", shape, filled=True, dtype="BF16" if cast else "F32"
            )
            task = {
                "path": str(path),
                "name": "model",
                "names": shape.names(),
                "each": shape.each,
                "dtype": "float32" if cast else None,
                "nbytes": options.mib * MIB,
            }
            case: dict[str, object] = {"cast": cast, "mib": options.mib, "tensors": options.tensors}
            for name in names:
                if not (cast and name.startswith("bare")):
                    rows += measure_way(name, task, case, steps, place)
            os.unlink(path)
    return rows


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments.add_argument("--mib", type=int, default=1024, help="size of the model as the workers have it")
    arguments.add_argument("--tensors", type=int, default=16)
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
