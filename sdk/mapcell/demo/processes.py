"""The processes and the folder of one run: whatever happens, neither outlives it.

Each child is the leader of a process group of its own, so that Ctrl-C in a terminal reaches the command alone, which
then ends its children in order; and so that whatever a child started can be ended with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mapcell_formats.errors import MapcellError

from .signals import Signals

_END_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
_READY_SECONDS = 30.0
_READY = b"mapcelld ready: "
_READ = 1 << 16
# A UNIX socket's path may have 107 bytes, and the daemon's are a file name longer than this folder's.
_MAX_FOLDER = 80


class Child:
    """One process that says JSON lines on stdout. Owns the process and its pipes until `end`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        self._said = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                process_group=0,
            )
        self.pid = self._process.pid

    def fileno(self) -> int:
        """The descriptor to wait on for what it says."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def hear(self) -> list[dict[str, Any]]:
        """The messages that have arrived. MapcellError, with the end of its log, when it ended instead."""
        data = os.read(self.fileno(), _READ)
        if not data:
            raise MapcellError(f"{self.name} ended before it was done: {self.last_words()}")
        *lines, self._said = (self._said + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def tell(self, message: object) -> None:
        """Writes one JSON line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def log(self) -> bytes:
        """What it wrote to stderr so far."""
        return self._log.read_bytes()

    def last_words(self) -> str:
        """The last line that it wrote to stderr."""
        lines = self.log().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.poll()}"

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask_to_end(self, number: int | None = None) -> None:
        """Closes its stdin, and sends it the signal if one is given."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if number is not None:
            self._process.send_signal(number)

    def end(self) -> None:
        """Waits for its end, kills it and whatever it started when that takes long, and lets go of it."""
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Workplace:
    """A temporary folder and the processes that work in it, from `open` to `close`."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._folder: Path | None = None
        self._children: list[Child] = []
        self._started = 0

    def open(self) -> None:
        """Makes the folder."""
        with self._signals.held():
            self._folder = Path(tempfile.mkdtemp(prefix="mapcell-demo-"))
            if len(os.fsencode(self._folder)) > _MAX_FOLDER:
                self._folder.rmdir()
                self._folder = Path(tempfile.mkdtemp(prefix="mapcell-demo-", dir="/tmp"))

    @property
    def folder(self) -> Path:
        """The folder; RuntimeError unless open."""
        if self._folder is None:
            raise RuntimeError("the workplace is not open")
        return self._folder

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Starts ``python arguments``, without the current folder on its path."""
        with self._signals.held():
            self._started += 1
            log = self.folder / f"log-{self._started}"
            child = Child(name, [sys.executable, "-P", *arguments], self._compiling_once(environment), log)
            self._children.append(child)
        return child

    def _compiling_once(self, environment: Mapping[str, str]) -> dict[str, str]:
        """`environment`, with Python's compiled files in our folder where the user wants none beside the sources.

        Without any, each worker would compile NumPy anew, and the table would show little else.
        """
        known = dict(environment)
        if known.pop("PYTHONDONTWRITEBYTECODE", ""):
            known["PYTHONPYCACHEPREFIX"] = str(self.folder / "compiled")
        return known

    def start_daemon(self, runtime: Path) -> Child:
        """Starts a daemon of our own in `runtime`, with nobody's configuration, and waits until it serves."""
        defaults = self.folder / "mapcelld.toml"
        defaults.touch()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAPCELL_", "NOTIFY_"))}
        arguments = ["-m", "mapcelld.main", "--config", str(defaults), "--runtime", str(runtime)]
        daemon = self.start("the daemon", arguments, environment)
        until = time.monotonic() + _READY_SECONDS
        while _READY not in daemon.log():
            if not daemon.alive() or time.monotonic() > until:
                raise MapcellError(f"the demo's daemon did not start: {daemon.last_words()}")
            time.sleep(0.005)
        return daemon

    def end(self, children: Sequence[Child], number: int | None = None) -> None:
        """Ends these processes: all are asked at once, then awaited."""
        with self._signals.held():
            for child in children:
                child.ask_to_end(number)
            for child in children:
                child.end()
                self._children.remove(child)

    def close(self) -> None:
        """Ends what still runs and removes the folder. Signals wait until that is done, at most for seconds."""
        with self._signals.held():
            # Newest first: workers before the daemon that they use.
            self.end(self._children[::-1], signal.SIGTERM)
            if self._folder is not None:
                shutil.rmtree(self._folder)
                self._folder = None


def messages(children: Sequence[Child]) -> Iterator[tuple[Child, dict[str, Any]]]:
    """What the children say, as it comes, until the caller stops asking. MapcellError when one ends or all are mute."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ, child)
        while True:
            ready = selector.select(_SILENCE_SECONDS)
            if not ready:
                raise MapcellError(f"no worker said anything for {_SILENCE_SECONDS:.0f} s; is the machine overloaded?")
            for key, _ in ready:
                speaker: Child = key.data
                for message in speaker.hear():
                    yield speaker, message
