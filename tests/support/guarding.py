"""Workers that checksum mapped weights without pause, and everything that can be done to a file under them.

`python -m support.guarding` is such a worker: it obeys one command to a line and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from mapcell.weights import Weights

_PATIENCE = 60.0


class Looker:
    """What one worker holds: weights by name, each with the number that all their elements have to be."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[list[Any], float]] = {}
        self.passes = 0
        self.wrong = 0
        self.rests = False

    def attach(self, name: str, number: str) -> None:
        """Views every tensor of the model `name`."""
        weights: Weights = mapcell.attach(name, daemon="require", timeout=_PATIENCE)
        self._held[name] = ([weights[n] for n in weights], float(number))

    def rest(self) -> None:
        """Looks only when it is told to, from here on."""
        self.rests = True

    def drop(self, name: str) -> None:
        """Lets go of one."""
        del self._held[name]

    def disturb(self, what: str, path: str) -> None:
        """Changes a file that this very process maps."""
        DISTURBANCES[what](Path(path))

    def look(self) -> dict[str, int]:
        """Compares every byte once more; what was seen so far."""
        for views, number in self._held.values():
            self.wrong += sum(not bool((view == number).all()) for view in views)
        self.passes += 1
        return {"passes": self.passes, "wrong": self.wrong}

    def obey(self) -> None:
        """Looks until its standard input ends, and does what it is told between two looks."""
        while True:
            looks = self._held and not self.rests
            if select.select([sys.stdin], [], [], 0 if looks else None)[0]:
                verb, *arguments = (sys.stdin.readline() or "end").split()
                if verb == "end":
                    return
                print(json.dumps(getattr(self, verb)(*arguments)), flush=True)
            if looks:
                self.look()


class Worker:
    """A Looker in a process of its own."""

    def __init__(self, env: dict[str, str], *inside: str) -> None:
        """`inside` is the command, if any, that runs it in other surroundings."""
        path = {"PYTHONPATH": str(Path(__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
        command = [*inside, sys.executable, "-m", "support.guarding"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env | path)
        self.pid = self.process.pid

    def say(self, *words: object) -> None:
        """Sends a command."""
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """What the worker answers to the oldest command without an answer. AssertionError when it died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker died: {self.process.wait()}"
        return json.loads(line)

    def tell(self, *words: object) -> Any:
        """The answer to a command."""
        self.say(*words)
        return self.answer()

    def close(self) -> None:
        """Ends the worker, alive or dead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# --- what is done to a file ------------------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _extend(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def _overwrite_mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[:] = b"\xff" * len(pages)


def _rewrite(path: Path) -> None:
    path.write_bytes(b"\xff" * 4096)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\xff" * 4096)


def _delete(path: Path) -> None:
    path.unlink()


def _rename_over(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(b"\xff" * path.stat().st_size)
    beside.replace(path)


def _chmod(path: Path) -> None:
    path.chmod(0o600)


def _move(path: Path) -> None:
    path.rename(path.with_name("moved"))


DISTURBANCES: dict[str, Callable[[Path], None]] = {
    f.__name__.strip("_"): f
    for f in (_truncate, _shrink, _extend, _overwrite, _overwrite_mapped, _rewrite, _append,
              _delete, _rename_over, _chmod, _move)
}  # fmt: skip

# Those that need no copy: the bytes stay in the file that is mapped.
HARMLESS = {"delete", "rename_over", "chmod", "move"}


if __name__ == "__main__":
    np.seterr(all="ignore")
    Looker().obey()
