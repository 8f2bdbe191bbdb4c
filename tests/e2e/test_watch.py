"""Events: what is there, then what happens, numbered, and only what the watcher may see."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from mapcell import watch
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell.watching import Watcher
from mapcell_formats.messages import Event, Unload
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess


def test_watch_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a daemon that was restarted the snapshot comes again, then what happens, numbered from 1."""
    path = write_safetensors(tmp_path / "m.safetensors", {"a": np.zeros(8, np.float32)})
    runtime = Path(tempfile.mkdtemp(prefix="mc", dir="/tmp"))
    monkeypatch.setenv("MAPCELL_RUNTIME", str(runtime))

    def load() -> None:
        attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="m").close()

    def until(kind: str, watcher: Watcher) -> list[Event]:
        seen: list[Event] = []
        while not any(e.kind == kind for e in seen):
            seen += watcher.poll(20)
        return seen

    try:
        with DaemonProcess(runtime=runtime) as daemon:
            load()
            with Watcher("m") as watcher:
                assert [e.number for e in until("ready", watcher)] == [0]
                daemon.kill()
                with DaemonProcess(runtime=runtime):
                    load()
                    seen = until("ready", watcher)
                    # By now it is subscribed: what happens from here on is told.
                    CONNECTIONS.client().ask(Unload("m"), 5)
                    seen += until("retired", watcher)
        numbers = [e.number for e in seen if e.number]
        assert numbers == list(range(1, len(numbers) + 1))
    finally:
        shutil.rmtree(runtime)


def test_watch_tells_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot first; then staging, progress, ready and retired of the watched model alone, without gaps."""
    path = write_safetensors(tmp_path / "m.safetensors", {"a": np.arange(1 << 21, dtype=np.float32)})

    def load(name: str) -> None:
        attach_path(
            str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name=name, residence="sealed"
        ).close()

    with DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        load("before")
        seen: list[Event] = []
        heard = threading.Event()

        def listen() -> None:
            for event in watch("m", timeout=20):
                seen.append(event)
                heard.set()
                if event.kind == "retired":
                    return

        listener = threading.Thread(target=listen)
        snapshot = next(watch("before", timeout=20))
        assert (snapshot.kind, snapshot.name, snapshot.number) == ("ready", "before", 0)
        listener.start()
        # The subscription is in force once the daemon answered a question that was asked after it.
        while not heard.is_set() and listener.is_alive():
            load("m")
            CONNECTIONS.client().ask(Unload("m"), 5, repeat=False)
        listener.join()
    assert [e.number for e in seen] == list(range(seen[0].number, seen[0].number + len(seen)))
    assert {e.name for e in seen} == {"m"}
    kinds = [e.kind for e in seen]
    assert kinds[-1] == "retired"
    assert kinds.index("ready") < kinds.index("retired")
    assert all(e.done <= e.total for e in seen)
