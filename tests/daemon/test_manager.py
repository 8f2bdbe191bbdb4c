"""What the service manager says to the daemon, and the daemon to it, over a real datagram socket."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcelld.config import ConfigError
from mapcelld.manager import Inherited, Manager
from support.notify import NotifySocket
from support.proc import eventually

PID = 4711


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    """A manager that listens."""
    with NotifySocket(tmp_path) as sock:
        yield sock


@pytest.mark.parametrize(
    ("environment", "inherited", "watchdog", "limit"),
    [
        ({}, [], None, 0),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, [("a", 3), ("b", 4)], None, 0),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, [("a", 3), ("", 4)], None, 0),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b:c"}, [("a", 3)], None, 0),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1"}, [("", 3)], None, 0),
        ({"LISTEN_PID": "4712", "LISTEN_FDS": "2"}, [], None, 0),
        ({"LISTEN_FDS": "2"}, [], None, 0),
        ({"WATCHDOG_USEC": "10000000"}, [], 10.0, 0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "4711"}, [], 0.5, 0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, [], None, 0),
        ({"WATCHDOG_USEC": "0"}, [], None, 0),
        ({"FDSTORE": "512"}, [], None, 512),
        ({"MAPCELL_FDSTORE": "4096"}, [], None, 4096),
        ({"FDSTORE": "512", "MAPCELL_FDSTORE": "4096"}, [], None, 512),
        ({"FDSTORE": "", "MAPCELL_FDSTORE": ""}, [], None, 0),
    ],
)
def test_environment(
    environment: dict[str, str], inherited: list[tuple[str, int]], watchdog: float | None, limit: int
) -> None:
    """What is meant for this process is taken from the environment, and nothing else."""
    manager = Manager(environment, PID)
    assert manager._inherited == [Inherited(*pair) for pair in inherited]
    assert manager.watchdog_seconds == watchdog
    assert manager.store_limit == limit


@pytest.mark.parametrize("name", ["FDSTORE", "MAPCELL_FDSTORE", "WATCHDOG_USEC", "LISTEN_FDS"])
@pytest.mark.parametrize("value", ["many", "-1", "1e3", "²", " 1"])
def test_environment_that_is_no_number(name: str, value: str) -> None:
    """A variable that is no number is a mistake of the configuration, and named."""
    with pytest.raises(ConfigError, match=name):
        Manager({"LISTEN_PID": str(PID), name: value}, PID)


def test_taken_once_and_not_inherited_further() -> None:
    """The descriptors are the caller's from then on, and no program that it starts gets them."""
    manager = Manager({}, PID)
    read, write = os.pipe()
    os.set_inheritable(read, True)
    manager._inherited = [Inherited("p", read)]
    try:
        assert manager.take() == [Inherited("p", read)]
        assert not os.get_inheritable(read)
        assert manager.take() == []
    finally:
        os.close(read)
        os.close(write)


def test_tells(notify: NotifySocket) -> None:
    """States and descriptors arrive as they were said, in order."""
    manager = notify.manager()
    read, write = os.pipe()
    try:
        manager.tell("READY=1")
        manager.keep("blake3-12.0", read)
        manager.forget("blake3-12.0")
        manager.barrier()
    finally:
        os.close(read)
        os.close(write)
    assert [t.values for t in notify.told] == [
        {"READY": "1"},
        {"FDSTORE": "1", "FDNAME": "blake3-12.0", "FDPOLL": "0"},
        {"FDSTOREREMOVE": "1", "FDNAME": "blake3-12.0"},
        {"BARRIER": "1"},
    ]
    assert [len(t.fds) for t in notify.told] == [0, 1, 0, 0]


def test_barrier_with_many_descriptors(notify: NotifySocket) -> None:
    """The barrier works when the first 1,024 descriptors are taken, as they are after adopting many versions."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("this host allows fewer than 1,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while taken[-1] < 1100:
            taken.append(os.dup(taken[0]))
        notify.manager().barrier()
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [t.values for t in notify.told] == [{"BARRIER": "1"}]


def test_abstract_address() -> None:
    """An address that begins with @ is an abstract one."""
    name = f"mapcell-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        Manager({"NOTIFY_SOCKET": f"@{name}"}, PID).tell("READY=1")
        assert sock.recv(64) == b"READY=1"


def test_without_a_manager() -> None:
    """Nothing happens, and nobody waits, when no manager started the process."""
    manager = Manager({}, PID)
    manager.tell("READY=1")
    manager.keep("x", 0)
    manager.barrier()
    assert manager.take() == []


def test_a_manager_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A manager that cannot be told costs a warning, not the daemon."""
    Manager({"NOTIFY_SOCKET": str(tmp_path / "none")}, PID).tell("READY=1")
    assert "was not told" in caplog.text


def test_a_manager_that_does_not_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A barrier that is never passed ends with a warning."""
    monkeypatch.setattr("mapcelld.manager._BARRIER_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "deaf"))
        Manager({"NOTIFY_SOCKET": str(tmp_path / "deaf")}, PID).barrier()
    assert "did not answer" in caplog.text


def test_the_fake_store_follows(notify: NotifySocket) -> None:
    """The manager of these tests keeps and forgets by name, as systemd does."""
    manager = notify.manager()
    for name in ("a", "b", "a"):
        manager.keep(name, 0)
    manager.forget("a")
    manager.keep("c", 0)
    eventually(lambda: len(notify.told) == 5)
    assert [name for name, _ in notify.store()] == ["b", "c"]
    assert [name for name, _ in notify.store(3)] == ["a", "b", "a"]
