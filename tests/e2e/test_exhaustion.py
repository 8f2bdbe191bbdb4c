"""The daemon at its own limits: ended while it works, and short of descriptors."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats import messages
from mapcell_formats.errors import DaemonUnavailable, StagingFailed
from mapcell_formats.messages import GetStatus
from support.daemon import DaemonProcess
from support.models import load, looked_at, number_of, write_big, write_model
from support.proc import eventually
from support.raw import ask
from support.staging import staging_stopped


def test_sigterm_while_staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM gives up what is being staged: the client hears at once, the stager is gone, the exit status is 0."""
    with DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        monkeypatch.setattr("mapcell.leasing._RETRY_SECONDS", 60)
        with staging_stopped(daemon.pid, write_big(tmp_path)) as (pid, result):
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait() == 0
            error = result()
            eventually(lambda: not Path(f"/proc/{pid}").exists())
        assert isinstance(error, (StagingFailed, DaemonUnavailable))


def flood(path: Path, kind: int, count: int, stack: ExitStack) -> int:
    """How many of `count` connections in a row were taken; they stay open."""
    made = 0
    for _ in range(count):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        # Not settimeout: connecting would not wait for a full backlog then.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        with contextlib.suppress(OSError):
            sock.connect(str(path))
            made += 1
            continue
        # The daemon listens no more.
        break
    return made


@pytest.mark.parametrize("channel", ["control", "handles"])
def test_descriptors_run_out(channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short of descriptors the daemon stops listening instead of dying, and serves again when there are some.

    libzmq would end the process at the first accept that finds none.
    """
    kind = socket.SOCK_STREAM if channel == "control" else socket.SOCK_SEQPACKET
    with DaemonProcess(descriptors=400) as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        held = load(write_model(tmp_path / "m.safetensors", 1), "m")
        looked_at()
        before = daemon_status()
        with ExitStack() as stack:
            until = time.monotonic() + 60
            # A daemon on a busy machine takes them more slowly than they come.
            while f"pauses: channel={channel}" not in daemon.log() and time.monotonic() < until:
                flood(daemon.runtime / f"{channel}.sock", kind, 300, stack)
                assert daemon.alive(), daemon.log()
            assert f"pauses: channel={channel}" in daemon.log()
            flood(daemon.runtime / f"{channel}.sock", kind, 300, stack)
            assert daemon.alive(), daemon.log()
            # Who was connected before is served as ever.
            assert daemon_status().pid == daemon.pid
            assert number_of(held) == 1
        eventually(lambda: daemon_status().descriptors <= before.descriptors, 30)
        eventually(lambda: "listens again: channel=handles" in daemon.log())
        assert number_of(mapcell.attach("m", timeout=20)) == 1
        assert isinstance(ask(daemon.runtime, GetStatus()), messages.Status)
