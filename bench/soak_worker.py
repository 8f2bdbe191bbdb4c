"""One worker of bench/soak.py: does what it is told on standard input, line by line, and says how it went.

It checks every element of everything that it attaches: tensor `t<i>` of version `n` holds `n + i` throughout.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from mapcell.daemon_backend import attach_path
from mapcell.weights import Weights
from mapcell_formats.errors import MapcellError

MOST_HELD = 4


class WrongBytes(Exception):
    """Something that was attached holds what it must not."""


def checked(weights: Weights) -> int:
    """The version's number, once every element was compared. WrongBytes otherwise."""
    number = int(weights["t0"].flat[0])
    for name in weights:
        view = weights[name]
        if not np.all(view == view.dtype.type(number + int(name[1:]))):
            raise WrongBytes(f"{weights.name}@{weights.version}: {name} is not all {number} + {name[1:]}")
    return number


class Worker:
    """The weights that it holds, and the things it can be told to do. Each answers with a version's number, or -1."""

    def __init__(self, seed: int) -> None:
        self._held: list[Weights] = []
        self.attached = 0.0
        self._random = random.Random(seed)

    def name(self, task: dict[str, Any]) -> int:
        """Attaches by name, cast when a dtype is given."""
        began = time.perf_counter()
        weights = mapcell.attach(task["name"], dtype=task.get("dtype"), daemon="require")
        self.attached = time.perf_counter() - began
        return self._take(weights)

    def path(self, task: dict[str, Any]) -> int:
        """Attaches by path."""
        return self._take(mapcell.attach(Path(task["path"]), daemon="require"))

    def load(self, task: dict[str, Any]) -> int:
        """Loads a source under a name."""
        weights = attach_path(
            task["path"],
            dtype=None,
            keys=None,
            prefix="",
            mode="r",
            timeout=60,
            residence=task["residence"],
            name=task["name"],
        )
        return self._take(weights)

    def release(self, task: dict[str, Any]) -> int:
        """Looks a last time at something held, and lets go of it."""
        if not self._held:
            return -1
        return checked(self._held.pop(self._random.randrange(len(self._held))))

    def newer(self, task: dict[str, Any]) -> int:
        """Takes over what became of something held, as a worker that serves would."""
        if not self._held:
            return -1
        place = self._random.randrange(len(self._held))
        weights = self._held[place]
        if weights.newer() is None:
            return checked(weights)
        self._held[place] = mapcell.attach(weights.name, daemon="require")
        return checked(self._held[place])

    def _take(self, weights: Weights) -> int:
        self._held.append(weights)
        if len(self._held) > MOST_HELD:
            self._held.pop(0)
        return checked(weights)


def answer(worker: Worker, task: dict[str, Any]) -> dict[str, Any]:
    """What became of one task: its number and how long attaching took, or the class and text of its error."""
    try:
        number = getattr(worker, task["do"])(task)
    except (MapcellError, WrongBytes) as exc:
        return {"error": type(exc).__name__, "text": str(exc)[:300]}
    return {"number": number, "seconds": worker.attached}


def main() -> None:
    """Works until standard input ends."""
    worker = Worker(int(sys.argv[1]))
    # What a process imports and connects once is not what attaching takes.
    mapcell.daemon_status()
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "stop":
            break
        print(json.dumps(answer(worker, task)), flush=True)


if __name__ == "__main__":
    main()
