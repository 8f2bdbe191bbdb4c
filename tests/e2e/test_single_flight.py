"""Many clients that ask for one checkpoint have it read once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from mapcell.connection import daemon_status
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

CLIENTS = 50

CLIENT = """
import os, sys, threading
from mapcell.daemon_backend import attach_path
path, count = sys.argv[1], int(sys.argv[2])
digests, failures = [], []
barrier = threading.Barrier(count)
def one():
    barrier.wait()
    try:
        w = attach_path(path, dtype=None, keys=None, prefix="", mode="r", timeout=60, residence="sealed")
        digests.append((w.version, float(w["t3"][0])))
    except Exception as exc:
        failures.append(repr(exc))
threads = [threading.Thread(target=one) for _ in range(count)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not failures, failures
print(len(digests), len(set(digests)), digests[0][0])
"""


class ReadWatch(threading.Thread):
    """Samples what each process below `root` has read (rchar), as long as it lives."""

    def __init__(self, root: int) -> None:
        super().__init__()
        self._root = root
        self._stop_asked = threading.Event()
        self.read: dict[int, int] = {}

    def run(self) -> None:
        """Samples until stopped."""
        while not self._stop_asked.wait(0.001):
            for pid in self._below(self._root):
                with contextlib.suppress(OSError, IndexError):
                    self.read[pid] = int(Path(f"/proc/{pid}/io").read_text().split()[1])

    def stop(self) -> dict[int, int]:
        """Ends the sampling; bytes read by pid."""
        self._stop_asked.set()
        self.join()
        return self.read

    def _below(self, pid: int) -> list[int]:
        try:
            children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []
        return children + [p for c in children for p in self._below(c)]


def test_fifty_clients_read_the_file_once(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """50 clients in 5 processes ask at once: the stagers read the file's bytes once, and all get one digest."""
    rng = np.random.default_rng(5)
    path = write_safetensors(
        tmp_path / "m.safetensors", {f"t{i}": rng.standard_normal(1 << 18).astype(np.float32) for i in range(32)}
    )
    size = path.stat().st_size
    with DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        (spawner,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        watch = ReadWatch(int(spawner))
        watch.start()
        command = [sys.executable, "-c", CLIENT, str(path), str(CLIENTS // 5)]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=daemon.env())
            for _ in range(5)
        ]
        out = [c.communicate(timeout=60) for c in clients]
        assert [c.returncode for c in clients] == [0] * 5, out
        answers = {o[0] for o in out}
        assert len(answers) == 1
        assert answers.pop().startswith("10 1 blake3:")
        status = daemon_status()
        # What the kernel counted for the stager that published, and what was seen of every stager: the others
        # were let go before they read a byte of the file.
        assert size <= status.bytes_read <= size * 1.01 + (1 << 20)
        per_process = sorted(watch.stop().values())
        assert sum(1 for n in per_process if n > size / 4) == 1, per_process
        assert status.sealed < size * 1.01 + (1 << 20)
        daemon_read = int(Path(f"/proc/{daemon.pid}/io").read_text().split()[1])
        assert daemon_read < size / 2
