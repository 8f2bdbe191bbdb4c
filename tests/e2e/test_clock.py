"""The daemon's clocks jump: wall time in both directions, and time since boot forward, as after a long stop."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import TICKET_SECONDS, Attach, Grant, ListLeases
from support.clock import Clock
from support.daemon import DaemonProcess
from support.models import load, looked_at, number_of, tell, write_big, write_model
from support.proc import eventually, shared_memory, stagers
from support.raw import connect, hear, raw_attach, redeem, ticket_for
from support.staging import staging_stopped

_YEAR = 365 * 86_400.0


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """The clocks of the daemon."""
    return Clock(tmp_path / "clock")


@pytest.fixture
def daemon(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon with those clocks, which holds the sealed model "m" of number 1."""
    with DaemonProcess(environment=clock.environment()) as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        load(write_model(tmp_path / "m.safetensors", 1), "m")
        gc.collect()
        eventually(lambda: daemon_status().leases == 0)
        yield running


@pytest.mark.parametrize("years", [-40, 10], ids=["back", "forward"])
def test_wall_clock_jumps(years: int, clock: Clock, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A wall clock that jumps by years ends no lease, hinders no request, and shows in `since` alone."""
    held = mapcell.attach("m")
    uptime = daemon_status().uptime
    clock.set(wall=years * _YEAR)
    assert number_of(held) == number_of(mapcell.attach("m")) == 1
    assert number_of(load(write_model(tmp_path / "n.safetensors", 2), "n")) == 2
    late = mapcell.attach("n")
    since = {row.name: row.since for row in tell(ListLeases()).rows}
    assert abs(since["n"] - since["m"] - years * _YEAR) < _YEAR
    clock.set()
    assert number_of(mapcell.attach("m", timeout=20)) == 1
    assert number_of(late) == 2
    assert uptime <= daemon_status().uptime < uptime + _YEAR
    del held, late
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)


def test_late_ticket(clock: Clock, daemon: DaemonProcess) -> None:
    """A ticket is good until its time is over and refused after; a new one serves as ever."""
    looked_at()
    before = daemon_status()
    first, second = (ticket_for(daemon.runtime, Attach("m")) for _ in range(2))
    clock.set(monotonic=TICKET_SECONDS - 20)
    with connect(daemon.runtime) as in_time:
        redeem(in_time, first)
        grant, fds = hear(in_time)
        for fd in fds:
            os.close(fd)
        assert isinstance(grant, Grant)
    clock.set(monotonic=TICKET_SECONDS + 20)
    with connect(daemon.runtime) as late:
        redeem(late, second)
        refused, fds = hear(late)
        assert (refused.code, fds) == ("protocol", [])
    with raw_attach(daemon.runtime, "m"):
        eventually(lambda: daemon_status().leases == 1)
    eventually(lambda: daemon_status().leases == 0 and daemon_status().descriptors == before.descriptors)


def test_stopped_for_a_day(clock: Clock, daemon: DaemonProcess) -> None:
    """A daemon that wakes up a day later, all its deadlines past, still knows its leases and serves."""
    held = mapcell.attach("m")
    daemon.send_signal(signal.SIGSTOP)
    clock.set(monotonic=86_400)
    daemon.send_signal(signal.SIGCONT)
    assert number_of(mapcell.attach("m", timeout=20)) == number_of(held) == 1
    gc.collect()
    eventually(lambda: daemon_status().leases == 1)
    del held
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)


def test_a_day_passes_while_staging(clock: Clock, daemon: DaemonProcess, tmp_path: Path) -> None:
    """Staging whose deadline passes in one jump fails by type or goes on; either way nothing of it stays."""
    sealed = daemon_status().sealed
    with staging_stopped(daemon.pid, write_big(tmp_path)) as (pid, result):
        clock.set(monotonic=86_400)
        os.kill(pid, signal.SIGCONT)
        outcome = result()
    assert outcome == 5 or isinstance(outcome, StagingFailed)
    eventually(lambda: not stagers(daemon.pid))
    if outcome != 5:
        eventually(lambda: shared_memory(daemon.pid) == sealed == daemon_status().sealed)
    assert number_of(mapcell.attach("m", timeout=20)) == 1
