"""A real daemon in a process of its own, for tests that need one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 30.0
STOP_SECONDS = 20.0
_READY = "mapcelld ready: "


class DaemonProcess:
    """`mapcelld` with `arguments`, ready once this object is. Owns the process and its folder until `stop`.

    Use it as a context manager: its end asserts that the daemon exits 0 on SIGTERM and leaves no socket behind,
    unless `kill` ended it before. `descriptors` is the most that it may have open, `under` a command
    that runs it and becomes it.
    """

    def __init__(
        self,
        *arguments: str,
        runtime: Path | None = None,
        environment: dict[str, str] | None = None,
        descriptors: int | None = None,
        under: Sequence[str] = (),
    ) -> None:
        # Short: a UNIX socket's path holds 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="mc", dir="/tmp"))
        self.runtime = runtime or self._folder / "run"
        self._log = self._folder / "log"
        limit = ["prlimit", f"--nofile={descriptors}", "--"] if descriptors else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*under, *limit, sys.executable, "-m", "mapcelld.main", "--runtime", str(self.runtime), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env() | (environment or {}),
            )
        self.pid = self._process.pid
        self._ended = False
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            self._remove()
            raise

    def env(self) -> dict[str, str]:
        """The environment of a client of this daemon."""
        foreign = ("MAPCELL_CONFIG", "MAPCELL_DAEMON", "MAPCELL_LOG")
        return {k: v for k, v in os.environ.items() if k not in foreign} | {"MAPCELL_RUNTIME": str(self.runtime)}

    def log(self) -> str:
        """What the daemon wrote so far."""
        return self._log.read_text(errors="replace")

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Sends the daemon a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The daemon's exit status, once it has ended."""
        return self._process.wait(seconds)

    def stop(self) -> None:
        """Ends the daemon with SIGTERM; AssertionError unless it exits 0 and leaves no socket. Once is enough."""
        if self._ended:
            return
        self._ended = True
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon did not end on SIGTERM:\n{self.log()}") from None
        assert status == 0, f"the daemon exited with {status}:\n{self.log()}"
        left = [p.name for p in self.runtime.iterdir() if p.is_socket()]
        assert not left, f"the daemon left {left} behind:\n{self.log()}"

    def kill(self) -> None:
        """Ends the daemon with SIGKILL, as the kernel does when memory is short."""
        self._ended = True
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._remove()

    def _await_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while _READY not in self.log():
            assert self.alive(), f"the daemon exited with {self._process.returncode}:\n{self.log()}"
            assert time.monotonic() < until, f"the daemon was not ready in {START_SECONDS} s:\n{self.log()}"
            time.sleep(0.01)

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
