"""Finding daemons and asking them: where they are sought, whose folders are believed, and what a fork inherits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

import mapcell.connection as connection
from mapcell.connection import CONNECTIONS, ControlClient, daemon_status, disconnect, planted, runtime_folders
from mapcell_formats import messages, wire
from mapcell_formats.errors import DaemonUnavailable, NotFound, ProtocolError
from mapcell_formats.messages import Attach, GetStatus, ListModels, Models, Refused, Selection
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.users import OTHER_UID, needs_root

NOTHING = Models(())


@pytest.mark.parametrize(
    ("environment", "folders"),
    [
        ({"MAPCELL_RUNTIME": "/a", "XDG_RUNTIME_DIR": "/b"}, ["/a"]),
        ({"XDG_RUNTIME_DIR": "/b"}, ["/b/mapcell", "/run/mapcell", f"/tmp/mapcell-{os.getuid()}"]),
        ({"MAPCELL_RUNTIME": ""}, ["/run/mapcell", f"/tmp/mapcell-{os.getuid()}"]),
    ],
)
def test_runtime_folders(environment: dict[str, str], folders: list[str]) -> None:
    """MAPCELL_RUNTIME alone when it is set, else the user's, the system's and the one in /tmp."""
    assert [str(f) for f in runtime_folders(environment)] == folders


@needs_root
def test_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In /tmp anybody can make the folder that is ours by name: it is believed when it is ours or root's."""
    folder = str(tmp_path)
    monkeypatch.setattr(connection, "_in_tmp", lambda: folder)
    assert not planted(folder)
    assert not planted(f"{folder}/nothing")
    os.chown(tmp_path, OTHER_UID, OTHER_UID)
    assert planted(folder)
    monkeypatch.setattr(connection, "runtime_folders", lambda: [folder])
    monkeypatch.setattr(connection, "listens", lambda folder: True)
    with pytest.raises(DaemonUnavailable, match="no mapcell daemon answers"):
        CONNECTIONS.client()


class Answering:
    """A ROUTER in a daemon's place that answers as a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replies: list[tuple[int | None, object]] = []
        self.asked: list[object] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(f"ipc://{folder}/control.sock")
        self._ended = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended:
            if not self._router.poll(10):
                continue
            identity, payload = self._router.recv_multipart()
            number, message = wire.decode(payload, messages.REQUESTS)
            self.asked.append(message)
            replies, self.replies = self.replies, []
            for under, reply in replies:
                self._router.send_multipart([identity, wire.encode(reply, number if under is None else under)])

    def close(self) -> None:
        """Ends it. A second call does nothing."""
        self._ended = True
        self._thread.join()
        self._router.close()
        self._context.term()


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """What answers."""
    served = Answering(tmp_path)
    yield served
    served.close()


@pytest.fixture
def client(answering: Answering) -> Iterator[ControlClient]:
    """What asks it."""
    asking = ControlClient(str(answering.folder))
    yield asking
    asking.close()


def test_answers(answering: Answering, client: ControlClient) -> None:
    """The answer under the question's number counts; older ones and events do not."""
    event = messages.Event(1, "ready", "m", "v", 1, 1, "")
    answering.replies = [(99, Refused("format", "an old answer", {})), (0, event), (None, NOTHING)]
    assert client.ask(ListModels(), 10) == NOTHING


@pytest.mark.parametrize("under", [None, 0], ids=["its number", "none"])
def test_refusals(answering: Answering, client: ControlClient, under: int | None) -> None:
    """A refusal is raised as what it is, also by a daemon that could not read the question's number."""
    answering.replies = [(under, Refused.of(NotFound("no model 'x'", model="x")))]
    with pytest.raises(NotFound, match="no model 'x'"):
        client.ask(Attach("x"), 10)


@pytest.mark.parametrize("repeat", [True, False])
def test_asked_again(
    answering: Answering, client: ControlClient, monkeypatch: pytest.MonkeyPatch, repeat: bool
) -> None:
    """A question without an answer is put again, unless it must not be, until its time is over."""
    monkeypatch.setattr(connection, "_ASK_AGAIN_SECONDS", 0.01)
    with pytest.raises(DaemonUnavailable, match="gave no answer within 0 s"):
        client.ask(ListModels(), 0.3, repeat)
    client.close()
    answering.close()
    assert len(answering.asked) > 1 if repeat else len(answering.asked) == 1


def test_too_long_to_ask(client: ControlClient) -> None:
    """A question that the daemon would not take is not sent."""
    keys = tuple(f"{n:0400d}" for n in range(4000))
    with pytest.raises(ProtocolError, match="ask for fewer tensors by name"):
        client.ask(Attach("x", Selection(keys=keys)), 10)


def test_closed_by_another_thread(client: ControlClient) -> None:
    """Asking over a connection that was ended is an error of ours, not of ZeroMQ's."""
    client.close()
    client.close()
    with pytest.raises(DaemonUnavailable, match="ask again"):
        client.ask(ListModels(), 10)


def test_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no daemon is, none is found, at once and by the name of the folder."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(tmp_path))
    assert daemon_status() is None
    with pytest.raises(DaemonUnavailable, match=str(tmp_path)):
        CONNECTIONS.client()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


def test_threads(daemon: DaemonProcess) -> None:
    """Threads share one connection and get the answers to their own questions."""
    wrong: list[object] = []

    def work() -> None:
        for _ in range(50):
            if CONNECTIONS.client().ask(GetStatus(), 20).pid != daemon.pid:
                wrong.append("pid")
            if not isinstance(CONNECTIONS.client().ask(ListModels(), 20), Models):
                wrong.append("models")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKING = """
import os, sys, threading, time
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell_formats.messages import GetStatus

assert daemon_status() is not None
stop = threading.Event()

def busy():
    while not stop.is_set():
        CONNECTIONS.client().ask(GetStatus(), 20)

# Forked while other threads hold the locks and the socket.
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
pids = []
for number in range(10):
    pid = os.fork()
    if pid == 0:
        # Both ways a child may end: as a program does, and at once.
        assert daemon_status() is not None
        if number % 2:
            sys.exit(0)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
assert daemon_status() is not None
"""


def said(daemon: DaemonProcess, program: str, *arguments: str) -> str:
    """What a program says in all, warnings taken for errors; it has to end well."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    ran = subprocess.run(command, env=daemon.env(), capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def test_forks(daemon: DaemonProcess) -> None:
    """Children that are forked at any moment ask over connections of their own, and end without a word."""
    assert said(daemon, FORKING) == ""


ENDING = """
import mapcell.attaching, sys
weights = mapcell.attaching.attach(sys.argv[1], daemon="require")
array = weights["w"]
"""


def test_ending_with_everything_open(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A program that ends with weights, views and a connection open says nothing."""
    file = write_safetensors(tmp_path / "x.safetensors", {"w": np.ones(4, np.float32)})
    assert said(daemon, ENDING, str(file)) == ""


def test_disconnecting(daemon: DaemonProcess) -> None:
    """After disconnecting, the next question connects again."""
    assert daemon_status() is not None
    disconnect()
    disconnect()
    assert daemon_status() is not None
