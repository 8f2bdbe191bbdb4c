"""What most of these tests start from."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator

import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Unload
from support.daemon import DaemonProcess
from support.models import load, looked_at, number_of, rows, tell, write_model
from support.proc import children, eventually, shared_memory, stagers


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon with nothing loaded, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


def figures(daemon: DaemonProcess) -> tuple[int, ...]:
    """What the daemon holds: leases, connections, descriptors, jobs, models, sealed and shared bytes, processes."""
    s = daemon_status()
    held = s.leases, s.connections, s.descriptors, s.stagers, s.models, s.sealed
    return *held, shared_memory(daemon.pid), len(stagers(daemon.pid)), len(children(daemon.pid))


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for all faults, which holds the sealed model "m": it has to outlive them all."""
    with pytest.MonkeyPatch.context() as patch, DaemonProcess() as running:
        patch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        load(write_model(tmp_path_factory.mktemp("standing") / "m.safetensors", 1), "m")
        gc.collect()
        looked_at()
        # Else what ends here ends in the middle of the first test, and looks like its doing.
        eventually(lambda: daemon_status().leases == 0)
        mapcell.disconnect()
        yield running


@pytest.fixture
def unharmed(standing: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """That daemon; afterwards it serves, and is back at what it held."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(standing.runtime))
    daemon_status()
    eventually(lambda: figures(standing) == figures(standing))
    before = figures(standing)
    yield standing
    gc.collect()
    assert number_of(mapcell.attach("m")) == 1
    gc.collect()
    for row in rows():
        if row.name != "m":
            with contextlib.suppress(MapcellError):
                tell(Unload(row.name))
    until = time.monotonic() + 10
    while figures(standing) != before and time.monotonic() < until:
        time.sleep(0.02)
    assert figures(standing) == before, "leases, connections, descriptors, jobs, models, sealed, shared, processes"
