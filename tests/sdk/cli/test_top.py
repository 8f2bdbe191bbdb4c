"""top against a real daemon: in a pseudo-terminal as a person sees it, and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

from .conftest import Cli
from .test_main import MAIN, start

SECONDS = 30.0
ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
LOCAL_FLAGS = 3


class Terminal:
    """`mapcell top` in a pseudo-terminal."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self.ours = ours
        self.drawn = b""

    def read(self) -> bool:
        """Takes in what was drawn; False once the other side is closed."""
        try:
            self.drawn += os.read(self.ours, 65_536)
        # What a pseudo-terminal says when its other side was closed.
        except OSError:
            return False
        return True

    def wait_for(self, pattern: str) -> None:
        """Waits until something that matches `pattern` was drawn after what was waited for before."""
        until = time.monotonic() + SECONDS
        while (found := re.search(pattern.encode(), self.drawn)) is None:
            assert time.monotonic() < until, f"{pattern!r} was never drawn: {self.drawn[-3000:]!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                assert self.read(), f"it ended before {pattern!r} was drawn: {self.drawn[-3000:]!r}"
        self.drawn = self.drawn[found.end() :]

    def end(self) -> tuple[int, bytes]:
        """The exit status, and what was drawn until then."""
        while self.read():
            pass
        return self.process.wait(SECONDS), self.drawn


@contextmanager
def terminal(environment: dict[str, str], *options: str) -> Iterator[Terminal]:
    """Runs `mapcell top` in a terminal of 100 columns and 30 lines."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    command = [sys.executable, "-c", MAIN, "top", "--interval", "0.1", *options]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"], ids=["q", "Q", "Ctrl-C"])
def test_live(key: bytes, daemon: DaemonProcess, checkpoint: Path, cli: Cli) -> None:
    """The alternate screen shows what happens as it happens, and a key ends it with the terminal as it was."""
    with terminal(daemon.env()) as top:
        before = termios.tcgetattr(top.ours)
        top.wait_for("\\[\\?1049h")
        top.wait_for(f"mapcelld .*pid {daemon.pid}")
        top.wait_for("no models are loaded")
        assert not termios.tcgetattr(top.ours)[LOCAL_FLAGS] & termios.ECHO
        assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
        top.wait_for("small +blake3:[0-9a-f]{8} +ready +sealed +F32 +4.0 KiB +0")
        top.wait_for("EVENTS")
        top.wait_for("small blake3:[0-9a-f]{8}: ready, 4.0 KiB sealed")
        with attach("small"):
            top.wait_for("leases  1 ")
            top.wait_for("4.0 KiB +1")
        top.wait_for("leases  0 ")
        os.write(top.ours, key)
        status, drawn = top.end()
        assert status == 0
        assert LEAVE_SCREEN in drawn
        assert before[LOCAL_FLAGS] & termios.ECHO


def test_attaches_have_a_rate(daemon: DaemonProcess, checkpoint: Path, cli: Cli) -> None:
    """Attaching again and again shows in the count and in its rate."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    before = cli.json("status")["attaches"]
    with terminal(daemon.env()) as top:
        top.wait_for(f"attaches {before} ")
        for _ in range(25):
            attach("small").close()
        top.wait_for(f"attaches {before + 25} \\([1-9][0-9]*\\.[0-9]/s\\)")
        os.write(top.ours, b"q")
        assert top.end()[0] == 0


def test_staging_progress(daemon: DaemonProcess, tmp_path: Path, cli: Cli) -> None:
    """What is being staged appears, and in the end is ready."""
    tensors = {f"t{i}": np.full(1 << 20, i, np.float32) for i in range(12)}
    path = write_safetensors(tmp_path / "large.safetensors", tensors)
    with terminal(daemon.env()) as top:
        top.wait_for("no models are loaded")
        assert cli("load", str(path), "--residence", "sealed", "--no-wait").status == 0
        top.wait_for("large: staging 48.0 MiB")
        top.wait_for("large blake3:[0-9a-f]{8}: ready, 48.0 MiB sealed")
        os.write(top.ours, b"q")
        assert top.end()[0] == 0


def test_restart(checkpoint: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that goes away is waited for, and one that comes back is shown with what happens there."""
    with tempfile.TemporaryDirectory(prefix="mc", dir="/tmp") as folder:
        runtime = Path(folder) / "run"
        monkeypatch.setenv("MAPCELL_RUNTIME", str(runtime))
        with DaemonProcess(runtime=runtime) as first, terminal(first.env()) as top:
            top.wait_for(f"pid {first.pid}")
            first.kill()
            top.wait_for("the daemon at .*; waiting for it")
            with DaemonProcess(runtime=runtime) as second:
                top.wait_for(f"pid {second.pid}")
                top.wait_for(f"a daemon with pid {second.pid} answers")
                assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
                top.wait_for("small +blake3:[0-9a-f]{8} +ready")
                top.wait_for("small blake3:[0-9a-f]{8}: ready")
                os.write(top.ours, b"q")
                assert top.end()[0] == 0


def test_resize_and_terminate(daemon: DaemonProcess) -> None:
    """Another size is drawn for, and SIGTERM gives the terminal back too."""
    with terminal(daemon.env()) as top:
        top.wait_for("q quits")
        termios.tcsetwinsize(top.ours, (10, 30))
        top.wait_for(re.escape(f"mapcelld 0.1.0, pid {daemon.pid}, up "[:30]) + "(?=[^a-z])")
        top.process.send_signal(signal.SIGTERM)
        status, drawn = top.end()
    assert status == 128 + signal.SIGTERM
    assert LEAVE_SCREEN in drawn


def test_stops_and_goes_on(daemon: DaemonProcess) -> None:
    """Ctrl-Z gives the terminal back to the shell, and a job that is continued takes it again."""
    with terminal(daemon.env()) as top:
        top.wait_for("q quits")
        os.write(top.ours, b"\x1a")
        top.wait_for("\\[\\?1049l")
        # In a session of its own nobody could continue it, so the kernel does not stop it.
        top.wait_for("\\[\\?1049h")
        os.write(top.ours, b"q")
        assert top.end()[0] == 0


def test_once(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """--once prints one picture without control codes, however wide."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    ran = cli("top", "--once")
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out
    assert ran.out.startswith("mapcelld ")
    assert re.search("^small +blake3:.* ready ", ran.out, re.MULTILINE)


def test_pipe(daemon: DaemonProcess) -> None:
    """In a pipe a picture follows another, until the reader leaves or Ctrl-C comes."""
    with start("top", "--interval", "0.1", environment=daemon.env()) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert next(line for line in process.stdout if line.startswith(b"mapcelld ")).endswith(b"/run\n")
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err.strip()) == (130, b"")
    assert b"\x1b" not in rest


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--once"], 3), ([], 3), (["--interval", "0"], 2), (["--interval", "x"], 2)]
)
def test_refused(arguments: list[str], status: int, cli: Cli) -> None:
    """Without a daemon, or with an interval that is none, top ends at once."""
    ran = cli("top", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err
