"""A daemon that goes away stops nobody, and one that comes back is found again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell_formats.errors import DaemonUnavailable
from mapcell_formats.messages import ListLeases
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder that outlives the daemons that serve it, and this process pointed at it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="mcr", dir="/tmp") as folder:
        monkeypatch.setenv("MAPCELL_RUNTIME", folder)
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint with one tensor of ones."""
    return write_safetensors(tmp_path / "m.safetensors", {"a": np.ones(1000, np.float32)})


def test_attach_waits_for_a_daemon_that_was_there(runtime: Path, path: Path) -> None:
    """After kill -9, attach waits, succeeds with the next daemon, and the old views and leases are told to it."""
    with DaemonProcess(runtime=runtime) as first:
        old = mapcell.attach(path)
        view = old["a"]
        first.kill()
        assert view.sum() == 1000
    seconds = threading.Timer(0.5, lambda: None)
    seconds.start()
    result: list[mapcell.Weights] = []
    waiting = threading.Thread(target=lambda: result.append(mapcell.attach(path, daemon="require", timeout=20)))
    waiting.start()
    seconds.join()
    assert waiting.is_alive()
    with DaemonProcess(runtime=runtime):
        waiting.join()
        assert result[0].backend == "daemon"
        assert result[0]["a"].sum() == 1000
        # Both weights are of one version here, so the older lease could be told as well.
        until = time.monotonic() + 5
        while len(CONNECTIONS.client().ask(ListLeases(), 5).rows) < 2:
            assert time.monotonic() < until, "the lease from before was not told to the new daemon"
            time.sleep(0.25)
            mapcell.attach(path, daemon="require").close()
        assert view.sum() == 1000
        result.clear()
        del old, view
    mapcell.disconnect()


def test_auto_does_without_a_daemon_that_stays_away(runtime: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """daemon="auto" falls back to this process when the daemon does not come back; "require" says so."""
    with DaemonProcess(runtime=runtime) as first:
        assert mapcell.attach(path).backend == "daemon"
        first.kill()
    monkeypatch.setattr("mapcell.attaching._PATIENCE_SECONDS", 0.2)
    weights = mapcell.attach(path)
    assert weights.backend == "process"
    assert weights["a"].sum() == 1000
    weights.close()
    with pytest.raises(DaemonUnavailable):
        mapcell.attach(path, daemon="require", timeout=0.3)
    with pytest.raises(DaemonUnavailable):
        mapcell.attach("m", timeout=0.3)
    mapcell.disconnect()


def test_no_daemon_at_all_is_noticed_at_once(runtime: Path, path: Path) -> None:
    """Where no daemon ever answered nobody waits for one: "auto" maps the file, "require" names where it looked."""
    began = time.monotonic()
    with mapcell.attach(path) as weights:
        assert weights.backend == "process"
    with pytest.raises(DaemonUnavailable, match=str(runtime)):
        mapcell.attach(path, daemon="require")
    with pytest.raises(DaemonUnavailable, match=str(runtime)):
        mapcell.attach("by-name")
    assert daemon_status() is None
    # Not a benchmark: a wait for a daemon would take the timeout's 30 s.
    assert time.monotonic() - began < 10
