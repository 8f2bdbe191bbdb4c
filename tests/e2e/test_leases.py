"""A lease is a connection: whatever ends its last holder ends it, and nothing stays behind in the daemon."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.connection import daemon_status
from mapcell.daemon_backend import attach_path
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.models import looked_at
from support.proc import eventually

KILLS = int(os.environ.get("MAPCELL_TEST_KILLS", "20"))
# What the design promises for a worker that is gone.
GONE_SECONDS = 0.1

WORKER = """
import sys, time
from mapcell.attaching import attach
w = attach("m")
views = [w[n] for n in w]
print(sum(float(v.sum()) for v in views), flush=True)
time.sleep(60)
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon that holds the model "m", and this process pointed at it."""
    path = write_safetensors(tmp_path / "m.safetensors", {"a": np.ones((64, 64), np.float32), "b": np.arange(7)})
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="m", residence="sealed")
        gc.collect()
        wait_for(lambda: daemon_status().leases == 0)
        looked_at()
        yield running


def wait_for(condition: object, seconds: float = 5.0) -> float:
    """Waits until `condition()` holds; how long that took."""
    began = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - began


def test_killed_workers_leave_nothing(daemon: DaemonProcess) -> None:
    """kill -9 of a worker ends its lease at once and gives every descriptor back, round after round."""
    before = daemon_status().descriptors
    slowest = 0.0
    for _ in range(KILLS):
        worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, env=daemon.env())
        assert worker.stdout is not None
        assert float(worker.stdout.readline()) == 64 * 64 + 21
        assert daemon_status().leases == 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        slowest = max(slowest, wait_for(lambda: daemon_status().leases == 0))
        worker.stdout.close()
    eventually(lambda: daemon_status().descriptors == before)
    assert daemon_status().connections == 0
    # A promise of the daemon's, not a benchmark: a lease that lingers would be a leak. Noise gets a factor of ten.
    assert slowest < 10 * GONE_SECONDS


def test_lease_lives_as_long_as_the_last_view(daemon: DaemonProcess) -> None:
    """Closing Weights and dropping them keeps the lease while one array is left, and ends it with that."""
    weights = attach("m")
    view = weights["a"][3:5, ::2]
    weights.close()
    del weights
    gc.collect()
    assert daemon_status().leases == 1
    assert view.sum() == 64
    del view
    gc.collect()
    wait_for(lambda: daemon_status().leases == 0)


def test_forked_child_keeps_the_lease(daemon: DaemonProcess) -> None:
    """A lease that a forked child inherited outlives the parent's own hold, and ends with the child."""
    weights = attach("m")
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        weights.close()
        del weights
        gc.collect()
        time.sleep(0.05)
        assert daemon_status().leases == 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    wait_for(lambda: daemon_status().leases == 0)


def test_forked_child_attaches_by_itself(daemon: DaemonProcess) -> None:
    """A child that was forked after its parent attached gets a connection of its own and right answers."""
    assert attach("m")["a"].sum() == 4096
    pid = os.fork()
    if pid == 0:
        own = attach("m")
        os._exit(0 if own["a"].sum() == 4096 and daemon_status().leases >= 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert attach("m")["b"].sum() == 21


def test_views_survive_the_daemon(daemon: DaemonProcess) -> None:
    """kill -9 of the daemon stops no worker: what was mapped stays mapped."""
    weights = attach("m")
    view = weights["a"]
    daemon.kill()
    assert view.sum() == 4096
    assert weights["b"].sum() == 21
