"""Drives one daemon hard for minutes, with random kills, and looks at the end whether anything is left behind.

    python bench/soak.py [--seconds 600] [--seed 1] [--per-minute 1000]

Worker processes attach by name, by path and cast, load changed sources, follow new versions and let go; meanwhile
models are tagged, pinned, evicted, retired and unloaded, workers and stagers are killed, and garbage is sent to both
sockets. Every element that is attached is compared with what it has to be. At the end all workers go, everything is
unloaded, and the daemon has to hold what it held at the beginning. The exit status is 1 when something leaked, was
wrong, or failed in a way that it may not.

What happens is drawn from the seed; how operations meet each other is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import Row, parser, row, run
from mapcell.connection import CONNECTIONS, daemon_status, disconnect
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Evict, ListModels, Pin, Retire, Tag, Unload
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.proc import memory_files, stagers

WORKERS = 6
MODELS = 8
MIB = 1 << 20
# What one operation may end with when others get in its way.
EXPECTED = ("NotFound", "BudgetExceeded", "StagingFailed")
# Little more than what all models together take, so that versions, casts and what is held have to make room.
BUDGET = "256MiB"


def write_numbered(path: Path, number: int, mib: int) -> None:
    """Puts a checkpoint of `mib` MiB in the place of `path`: tensor `t<i>` is `number + i` throughout."""
    beside = path.with_name(path.name + ".new")
    tensors = {f"t{i}": np.full(MIB // 4, number + i, np.float32) for i in range(mib)}
    write_safetensors(beside, tensors)
    os.replace(beside, path)


class Hand:
    """One worker process, and the task that it is at."""

    def __init__(self, daemon: DaemonProcess, seed: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("soak_worker.py")), str(seed)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=daemon.env()
        )
        self.task: dict[str, Any] | None = None

    def tell(self, task: dict[str, Any]) -> None:
        """Gives it a task."""
        assert self.process.stdin is not None
        self.task = task
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def end(self, kill: bool) -> None:
        """Ends the process, in order or by force."""
        if kill:
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


class Soak:
    """The conductor: draws what happens, hands it out, and keeps the books."""

    def __init__(self, daemon: DaemonProcess, folder: Path, seed: int) -> None:
        self._daemon = daemon
        self._random = random.Random(seed)
        self._paths = {f"m{i}": folder / f"m{i}.safetensors" for i in range(MODELS)}
        # MiB. The last one is big, so that others attach while it is staged.
        self._sizes = {name: 4 + 4 * (i % 4) for i, name in enumerate(self._paths)} | {f"m{MODELS - 1}": 96}
        self._numbers: dict[str, set[int]] = {name: set() for name in self._paths}
        self._selector = selectors.DefaultSelector()
        self._hands: list[Hand] = []
        self._silent: list[socket.socket] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.faults: list[str] = []
        self.attaching: dict[bool, list[float]] = {False: [], True: []}
        for name in self._paths:
            self._change(name)

    # --- what may happen --------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Does one thing, drawn by its weight."""
        weights: dict[Callable[[], None], int] = {
            self._attach: 36,
            self._attach_path: 14,
            self._cast: 8,
            self._load: 10,
            self._stage_big: 2,
            self._release: 16,
            self._newer: 6,
            self._verb: 5,
            self._garbage: 3,
            self._kill_worker: 1,
            self._kill_stager: 1,
        }
        self._random.choices(list(weights), list(weights.values()))[0]()

    def warm_up(self) -> None:
        """Has happen once what a daemon makes once: threads, imports, caches."""
        self._hire()
        self._give({"do": "load", "name": "m0", "path": str(self._paths["m0"]), "residence": "sealed"})
        while any(hand.task is not None for hand in self._hands):
            self.listen(0.05)
        self._fire(self._hands[0], kill=False)
        unload_everything()

    def hire(self) -> None:
        """Starts the workers."""
        for _ in range(WORKERS):
            self._hire()

    def _attach(self) -> None:
        self._give({"do": "name", "name": self._name()})

    def _cast(self) -> None:
        self._give({"do": "name", "name": self._name(), "dtype": "float64"})

    def _attach_path(self) -> None:
        name = self._name()
        self._give({"do": "path", "name": name, "path": str(self._paths[name])})

    def _load(self) -> None:
        name = self._name()
        if self._random.random() < 0.5:
            self._change(name)
        residence = self._random.choice(["sealed", "sealed", "auto"])
        self._give({"do": "load", "name": name, "path": str(self._paths[name]), "residence": residence})

    def _stage_big(self) -> None:
        """Changes the big model and has it staged, while others attach."""
        name = list(self._paths)[-1]
        self._change(name)
        self._give({"do": "load", "name": name, "path": str(self._paths[name]), "residence": "sealed"})
        for _ in range(4):
            self.listen(0.01)
            self._attach()

    def _release(self) -> None:
        self._give({"do": "release"})

    def _newer(self) -> None:
        self._give({"do": "newer"})

    def _verb(self) -> None:
        name = self._name()
        verbs = [Evict(name), Retire(name), Unload(name), Pin(name, True), Pin(name, False), Tag(name, "", "stable")]
        verb = self._random.choice(verbs)
        try:
            CONNECTIONS.client().ask(verb, 10, repeat=False)
            self.done[verb.OP] += 1
        except MapcellError as exc:
            # Evicting what is leased is refused in words of its own.
            self._refused(verb.OP, type(exc).__name__, str(exc), (*EXPECTED, "MapcellError"))

    def _garbage(self) -> None:
        channel, kind = self._random.choice([("control", socket.SOCK_STREAM), ("handles", socket.SOCK_SEQPACKET)])
        sock = socket.socket(socket.AF_UNIX, kind)
        with contextlib.suppress(OSError):
            sock.connect(f"{self._daemon.runtime}/{channel}.sock")
            sock.send(self._random.randbytes(self._random.randrange(2000)))
        self._silent.append(sock)
        if len(self._silent) > 20:
            self._silent.pop(0).close()
        self.done["garbage"] += 1

    def _kill_worker(self) -> None:
        hand = self._random.choice(self._hands)
        self._fire(hand, kill=True)
        self._hire()
        self.done["kill worker"] += 1

    def _kill_stager(self) -> None:
        for pid in stagers(self._daemon.pid)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.done["kill stager"] += 1

    # --- hands ------------------------------------------------------------------------------------------------------

    def _give(self, task: dict[str, Any]) -> None:
        idle = [hand for hand in self._hands if hand.task is None]
        if not idle:
            self.done["all busy"] += 1
            return
        task["while_staging"] = any(h.task is not None and h.task["do"] in ("load", "path") for h in self._hands)
        self._random.choice(idle).tell(task)

    def listen(self, seconds: float) -> None:
        """Takes answers for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._answered(key.data)

    def _answered(self, hand: Hand) -> None:
        assert hand.process.stdout is not None
        line = hand.process.stdout.readline()
        task, hand.task = hand.task, None
        if not line or task is None:
            self.faults.append(f"a worker ended by itself at {task}")
            self._fire(hand, kill=True)
            self._hire()
            return
        self._judge(task, json.loads(line))

    def _judge(self, task: dict[str, Any], result: dict[str, Any]) -> None:
        what = task["do"] + (" cast" if task.get("dtype") else "")
        if "error" in result:
            self._refused(what, result["error"], result["text"], EXPECTED)
            return
        self.done[what] += 1
        name = task.get("name")
        if name is not None and result["number"] not in self._numbers[name]:
            self.faults.append(f"{task} gave version {result['number']}, which {name} never had")
        if what == "name":
            self.attaching[task["while_staging"]].append(result["seconds"])

    def _refused(self, what: str, error: str, text: str, expected: tuple[str, ...]) -> None:
        self.refused[f"{what}: {error}"] += 1
        if error not in expected:
            self.faults.append(f"{what}: {error}: {text}")

    def _hire(self) -> None:
        hand = Hand(self._daemon, self._random.randrange(1 << 30))
        self._hands.append(hand)
        self._selector.register(hand.process.stdout, selectors.EVENT_READ, hand)  # type: ignore[arg-type]

    def _fire(self, hand: Hand, kill: bool) -> None:
        self._selector.unregister(hand.process.stdout)  # type: ignore[arg-type]
        self._hands.remove(hand)
        hand.end(kill)

    def finish(self) -> None:
        """Lets every hand finish its task, then go: half of them in order, half by force."""
        until = time.monotonic() + 60
        while any(hand.task is not None for hand in self._hands) and time.monotonic() < until:
            self.listen(0.1)
        self.faults += [f"never answered: {hand.task}" for hand in self._hands if hand.task is not None]
        for number, hand in enumerate(list(self._hands)):
            self._fire(hand, kill=bool(number % 2) or hand.task is not None)
        for sock in self._silent:
            sock.close()
        self._selector.close()

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        return self._random.choice(list(self._paths))

    def _change(self, name: str) -> None:
        # Small enough that every number and its neighbours are exact in every dtype.
        number = max(self._numbers[name], default=int(name[1:]) * 10_000) + 1
        self._numbers[name].add(number)
        write_numbered(self._paths[name], number, self._sizes[name])


def held(daemon: DaemonProcess) -> dict[str, int]:
    """What the daemon holds, by its own account and by the kernel's."""
    s = daemon_status()
    counts = {"leases": s.leases, "connections": s.connections, "descriptors": s.descriptors, "jobs": s.stagers}
    counts |= {"models": s.models, "sealed": s.sealed, "mapped": s.mapped}
    counts |= {"shared_memory": sum(memory_files([daemon.pid]).values()), "stagers": len(stagers(daemon.pid))}
    return counts | {"threads": len(os.listdir(f"/proc/{daemon.pid}/task"))}


def resident(pid: int) -> int:
    """Bytes of private memory that a process has resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def unload_everything() -> None:
    """Unloads whatever there is, pinned or not."""
    for model in CONNECTIONS.client().ask(ListModels(), 10).rows:
        with contextlib.suppress(MapcellError):
            CONNECTIONS.client().ask(Unload(f"{model.name}@{model.version}"), 10, repeat=False)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds at the median and the 99th percentile."""
    if not seconds:
        return {"count": 0}
    p50, p99 = (round(float(np.percentile(seconds, p)) * 1e3, 2) for p in (50, 99))
    return {"count": len(seconds), "p50_ms": p50, "p99_ms": p99}


def soak(seconds: float, seed: int, per_minute: float) -> dict[str, Any]:
    """The whole soak."""
    with tempfile.TemporaryDirectory(prefix="mcb", dir="/tmp") as folder, DaemonProcess("--budget", BUDGET) as daemon:
        os.environ["MAPCELL_RUNTIME"] = str(daemon.runtime)
        conductor = Soak(daemon, Path(folder), seed)
        conductor.warm_up()
        # Until the daemon noticed that the last connections are gone.
        time.sleep(1)
        before, memory = held(daemon), resident(daemon.pid)
        conductor.hire()
        began = time.monotonic()
        steps = 0
        while (now := time.monotonic() - began) < seconds:
            conductor.step()
            steps += 1
            conductor.listen(max(steps * 60 / per_minute - now, 0))
        conductor.finish()
        # Whoever is killed in the middle of an offer leaves a silent connection, which the daemon drops after 5 s.
        until = time.monotonic() + 20
        unload_everything()
        while (after := held(daemon)) != before and time.monotonic() < until:
            time.sleep(0.1)
        failures = [line for line in daemon.log().splitlines() if "Traceback" in line or "failed on this" in line]
        result = {
            "seconds": round(time.monotonic() - began, 1),
            "seed": seed,
            "operations": steps,
            "operations_per_minute": round(steps * 60 / seconds),
            "done": dict(sorted(conductor.done.items())),
            "refused": dict(sorted(conductor.refused.items())),
            "attach_ms": percentiles(conductor.attaching[False]),
            "attach_while_staging_ms": percentiles(conductor.attaching[True]),
            "leaked": {k: [before[k], after[k]] for k in before if before[k] != after[k]},
            "faults": conductor.faults[:20] + failures[:20],
            "daemon_grew_bytes": resident(daemon.pid) - memory,
        }
        disconnect()
    return result


def measure(options: argparse.Namespace) -> list[Row]:
    """The soak as one row; what was wrong is in its `leaked` and `faults`."""
    return [row({"seed": options.seed}, "mapcell", **soak(options.seconds, options.seed, options.per_minute))]


def main() -> None:
    """Parses, soaks, leaves the JSON; ends with 1 when anything was wrong."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=600, help="how long")
    arguments.add_argument("--seed", type=int, default=1, help="what the operations are drawn from")
    arguments.add_argument("--per-minute", type=float, default=1000, help="how many operations")
    figures = run(__file__, measure, arguments)[0]["figures"]
    sys.exit(1 if figures["leaked"] or figures["faults"] else 0)


if __name__ == "__main__":
    main()
