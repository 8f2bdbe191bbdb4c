"""Whatever becomes of a worker and whatever a client sends, the daemon serves on and holds what it held before."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats import messages, wire
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Attach, GetStatus, Grant, ListModels, Offer, Refused
from support.daemon import DaemonProcess
from support.models import number_of, rows, write_big, write_model
from support.proc import eventually
from support.raw import connect, hear, raw_attach, redeem, ticket_for


@pytest.fixture
def daemon(unharmed: DaemonProcess) -> DaemonProcess:
    """The daemon of all these tests, which is back at what it held after each."""
    return unharmed


# --- workers that die --------------------------------------------------------------------------------------------


def after_ticket(runtime: Path, path: Path) -> list[Any]:
    """Has a ticket that is never redeemed."""
    return [ticket_for(runtime, Attach("m"))]


def after_connect(runtime: Path, path: Path) -> list[Any]:
    """Connected, and said nothing."""
    return [*after_ticket(runtime, path), connect(runtime)]


def after_redeem(runtime: Path, path: Path) -> list[Any]:
    """Redeemed, and did not look at the answer."""
    ticket, sock = after_connect(runtime, path)
    redeem(sock, ticket)
    return [sock]


def after_grant(runtime: Path, path: Path) -> list[Any]:
    """Has the descriptors, and mapped nothing."""
    (sock,) = after_redeem(runtime, path)
    return [sock, hear(sock)]


def after_attach(runtime: Path, path: Path) -> list[Any]:
    """Has everything mapped and viewed."""
    weights = mapcell.attach("m")
    return [weights, number_of(weights)]


def after_offer(runtime: Path, path: Path) -> list[Any]:
    """Has sent its descriptors."""
    sock = connect(runtime)
    with path.open("rb") as file:
        redeem(sock, ticket_for(runtime, Offer((str(path),), residence="sealed")), [file.fileno()])
    return [sock]


def after_offer_without_files(runtime: Path, path: Path) -> list[Any]:
    """Announced a file, and sent none."""
    sock = connect(runtime)
    redeem(sock, ticket_for(runtime, Offer((str(path),))))
    return [sock]


def while_staging(runtime: Path, path: Path) -> list[Any]:
    """Hears that its bytes are being read."""
    (sock,) = after_offer(runtime, path)
    return [sock, sock.recv(messages.MAX_HANDLE_BYTES)]


STEPS = (
    after_ticket,
    after_connect,
    after_redeem,
    after_grant,
    after_attach,
    after_offer,
    after_offer_without_files,
    while_staging,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_worker_killed(step: Callable[[Path, Path], list[Any]], daemon: DaemonProcess, tmp_path: Path) -> None:
    """kill -9 at this step of attaching takes lease, connection, staging and descriptors along."""
    path = write_big(tmp_path)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = step(daemon.runtime, path)
        os.write(write, b"here" if held else b"")
        time.sleep(60)
        os._exit(0)
    try:
        os.close(write)
        assert os.read(read, 4) == b"here"
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    eventually(lambda: daemon_status().leases == daemon_status().connections == 0)
    assert [r.name for r in rows()] in (["m"], [str(path), "m"])


def test_worker_stopped_with_a_lease(daemon: DaemonProcess) -> None:
    """A worker that is stopped keeps its lease and holds nobody up; it goes on where it was, or is killed at last."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        weights = mapcell.attach("m")
        for _ in range(2):
            os.write(write, str(number_of(weights)).encode())
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.close(write)
        for _ in range(2):
            os.waitpid(pid, os.WUNTRACED)
            assert os.read(read, 1) == b"1"
            assert daemon_status().leases == 1
            for _ in range(20):
                assert number_of(mapcell.attach("m")) == 1
            gc.collect()
            os.kill(pid, signal.SIGCONT)
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("first", ["parent", "child"])
def test_forked_after_attach(first: str, daemon: DaemonProcess) -> None:
    """Whichever of parent and child lets go first, the other keeps lease and bytes, and ends both."""
    weights = mapcell.attach("m")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        signal.sigwait({signal.SIGTERM})
        os._exit(0 if number_of(weights) == 1 else 1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if first == "parent":
        weights.close()
        del weights
        gc.collect()
        time.sleep(0.1)
        assert daemon_status().leases == 1
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if first == "child":
        time.sleep(0.1)
        assert daemon_status().leases == 1
        assert number_of(weights) == 1


def test_two_hundred_threads(daemon: DaemonProcess) -> None:
    """200 threads that attach at once all get the right bytes and a lease each."""
    barrier, found, failed = threading.Barrier(200), [], []

    def work() -> None:
        barrier.wait()
        try:
            weights = mapcell.attach("m")
            found.append((number_of(weights), weights))
        except MapcellError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [n for n, _ in found] == [1] * 200
    assert daemon_status().leases == 200
    found.clear()


# --- clients that misbehave ----------------------------------------------------------------------------------------


def test_silence_and_deafness(daemon: DaemonProcess) -> None:
    """Who connects and says nothing, and who never takes what it was granted, is let go; who only waits long is not."""
    with connect(daemon.runtime) as silent, connect(daemon.runtime) as deaf, raw_attach(daemon.runtime, "m"):
        redeem(deaf, ticket_for(daemon.runtime, Attach("m")))
        eventually(lambda: daemon_status().connections == 3)
        assert hear(silent) == (None, [])
        eventually(lambda: daemon_status().connections == daemon_status().leases == 1)


def test_half_messages(daemon: DaemonProcess) -> None:
    """A message that stops in its middle is refused by type on either channel, or costs its sender the connection."""
    whole = wire.encode(messages.Redeem(bytes(16)))
    for length in (1, len(whole) // 2, len(whole) - 1):
        with connect(daemon.runtime) as sock:
            sock.send(whole[:length])
            refused, _ = hear(sock)
            assert (type(refused), refused.code) == (Refused, "protocol")
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{daemon.runtime}/control.sock")
        dealer.send(wire.encode(GetStatus(), 7)[:-1])
        assert dealer.poll(10_000)
        assert wire.decode(dealer.recv(), messages.REPLIES)[1].code == "protocol"
    # Half of ZeroMQ's own greeting, and none at all.
    with socket.socket(socket.AF_UNIX) as half, socket.socket(socket.AF_UNIX) as none:
        for sock, said in ((half, b"\xff\0\0\0\0"), (none, b"")):
            sock.settimeout(20)
            sock.connect(f"{daemon.runtime}/control.sock")
            sock.sendall(said)
        for sock in (half, none):
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass


def test_ticket_redeemed_twice(daemon: DaemonProcess) -> None:
    """A ticket gives one lease; the second try is refused, on the same connection or another."""
    ticket = ticket_for(daemon.runtime, Attach("m"))
    with connect(daemon.runtime) as one, connect(daemon.runtime) as two:
        redeem(one, ticket)
        grant, fds = hear(one)
        assert isinstance(grant, Grant)
        for fd in fds:
            os.close(fd)
        redeem(two, ticket)
        assert hear(two)[0].code == "protocol"
        redeem(one, ticket)
        assert hear(one)[0].code == "protocol"
        assert hear(one) == (None, [])


@pytest.mark.parametrize("request_", [Attach("m"), Offer(("/some/file",))], ids=["attach", "offer"])
def test_a_thousand_descriptors(request_: object, daemon: DaemonProcess) -> None:
    """1,000 descriptors with a ticket are installed nowhere: the sender is refused or granted, and then let go."""
    with connect(daemon.runtime) as sock, open("/dev/null", "rb") as null:
        ticket = ticket_for(daemon.runtime, request_)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(4):
                redeem(sock, ticket, [null.fileno()] * 250)
        heard = []
        while (message := hear(sock))[0] is not None:
            heard.append(message[0])
            for fd in message[1]:
                os.close(fd)
        assert heard == [] or isinstance(heard[-1], Refused)


def directory(stack: ExitStack, folder: Path) -> int:
    """A folder."""
    return _kept(stack, os.open(folder, os.O_RDONLY))


def device(stack: ExitStack, folder: Path) -> int:
    """A device that never ends."""
    return _kept(stack, os.open("/dev/zero", os.O_RDONLY))


def fifo(stack: ExitStack, folder: Path) -> int:
    """A fifo that nobody writes to."""
    os.mkfifo(folder / "fifo")
    return _kept(stack, os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK))


def unix_socket(stack: ExitStack, folder: Path) -> int:
    """A socket."""
    return stack.enter_context(socket.socket(socket.AF_UNIX)).fileno()


def writable(stack: ExitStack, folder: Path) -> int:
    """A checkpoint, open for writing too."""
    return _kept(stack, os.open(write_model(folder / "w.safetensors", 1), os.O_RDWR))


def only_a_place(stack: ExitStack, folder: Path) -> int:
    """A checkpoint, opened with O_PATH."""
    return _kept(stack, os.open(write_model(folder / "p.safetensors", 1), os.O_PATH))


def of_proc(stack: ExitStack, folder: Path) -> int:
    """A regular file of /proc, whose size is a lie."""
    return _kept(stack, os.open("/proc/self/maps", os.O_RDONLY))


def _kept(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


@pytest.mark.parametrize("make", [directory, device, fifo, unix_socket, writable, only_a_place, of_proc])
def test_bad_offer(make: Callable[[ExitStack, Path], int], daemon: DaemonProcess, tmp_path: Path) -> None:
    """A descriptor that is no regular file open for reading is refused by type, named by what the client called it."""
    with ExitStack() as stack, connect(daemon.runtime) as sock:
        redeem(sock, ticket_for(daemon.runtime, Offer(("/their/name",))), [make(stack, tmp_path)])
        refused, fds = hear(sock)
        assert fds == []
        assert refused.code in ("format", "access-denied")
        assert "/their/name" in refused.message


def test_endless_multipart(daemon: DaemonProcess) -> None:
    """A control message of 20,000 parts that does not end costs its sender an error at most, and is forgotten."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{daemon.runtime}/control.sock")
        for _ in range(20_000):
            sock.send(b"x" * 64, zmq.SNDMORE)
        # Meanwhile others are served.
        assert number_of(mapcell.attach("m")) == 1
        sock.send(b"the end")
        assert sock.poll(10_000)
        assert wire.decode(sock.recv(), messages.REPLIES)[1].code == "protocol"


def test_floods(daemon: DaemonProcess) -> None:
    """Thousands of questions whose answers nobody reads, and of connections that come and go, hold nobody up."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.SNDTIMEO, 10_000)
        deaf.connect(f"ipc://{daemon.runtime}/control.sock")
        for number in range(3_000):
            deaf.send(wire.encode(ListModels(), number))
            deaf.send(b"\xc1" * 100)
        for _ in range(1_000):
            connect(daemon.runtime).close()
        assert number_of(mapcell.attach("m")) == 1
    eventually(lambda: daemon_status().connections == 0)
