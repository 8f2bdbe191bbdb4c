"""Stagers as the daemon sees them: started through the spawner, spoken to over a channel, killed when let go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from mapcell_formats import messages, wire
from mapcell_formats.errors import ProtocolError, StagingFailed
from mapcell_formats.messages import JOB_FOLLOWS, Copied, Hashed, Job, Staged
from mapcelld import channel, memfd

log = logging.getLogger("mapcelld.stagers")

# Beside what one user has running; so that a user whose descriptors hang takes nobody else's turn.
MAX_PER_UID = 4
MAX_IN_ALL = 16
START_SECONDS = 10.0
# Whose turn it is when nobody asked: what the daemon does by itself takes no user's place.
LOOKING = -1
HASHING = -2
_PID = struct.Struct("<i")


@dataclass(frozen=True, slots=True)
class Told:
    """One message of a stager's and the descriptors that came with it, which the receiver then owns."""

    message: Any
    fds: list[int]


class Stager:
    """One stager under way. Owns the channel to it; closing that lets a sane stager end, and kills any other."""

    def __init__(self, sock: socket.socket, pid: int, spawner: Spawner) -> None:
        self._sock = sock
        self._pid = pid
        self._spawner = spawner

    def begin(self, job: Job, fds: Sequence[int]) -> None:
        """Sends the job with its descriptors, which stay the caller's. StagingFailed when the stager is gone."""
        # A job may name thousands of tensors, and a message has to fit the socket's buffer: it goes as memory.
        with channel.owned([memfd.sealed_copy("mapcell-job", wire.encode(job))]) as held:
            self._send(JOB_FOLLOWS, [*held, *fds])

    def send(self, message: object) -> None:
        """Sends one message. StagingFailed when the stager is gone."""
        self._send(wire.encode(message), ())

    def _send(self, payload: bytes, fds: Sequence[int]) -> None:
        try:
            channel.send(self._sock, payload, fds)
        except OSError as exc:
            raise StagingFailed(f"the stager is gone: {exc.strerror}") from exc

    async def receive(self, timeout: float) -> Told:
        """The next message. StagingFailed when none comes within `timeout` seconds or the stager died."""
        try:
            async with asyncio.timeout(timeout):
                await _readable(self._sock)
        except TimeoutError:
            raise StagingFailed(f"the source delivered nothing for {timeout:.0f} s; it was given up") from None
        try:
            payload, fds = channel.receive(self._sock, messages.MAX_CONTROL_BYTES, messages.MAX_DESCRIPTORS + 1)
        # One that is killed before it read what it was sent resets the connection.
        except OSError:
            payload, fds = b"", []
        if not payload:
            channel.close_all(fds)
            raise StagingFailed("the stager died, perhaps for want of memory; see the daemon's log")
        try:
            _, message = wire.decode(payload, messages.STAGER_REPORTS)
            if fds and not isinstance(message, (Staged, Hashed, Copied)):
                raise ProtocolError(f"the stager sent {len(fds)} descriptors with {type(message).__name__}")
        except BaseException:
            channel.close_all(fds)
            raise
        return Told(message, fds)

    def close(self) -> None:
        """Lets the stager go, alive or dead."""
        self._sock.close()
        self._spawner.kill(self._pid)


class Spawner:
    """The spawner process. Owns it and the channel to it; started anew when it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._answers: deque[asyncio.Future[int]] = deque()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Starts the process unless it runs."""
        # Under a lock: ending a dead one takes a moment, in which the next job would start another.
        async with self._starting:
            if self._sock is not None and self._process is not None and self._process.poll() is None:
                return
            await self.close()
            self._sock, self._process = _launch()
            asyncio.get_running_loop().add_reader(self._sock, self._on_answer, self._sock)

    async def fork(self, job: socket.socket, urgent: bool = False) -> int:
        """Forks a stager that holds `job` (which stays the caller's); an `urgent` one gives way to nobody. Its pid."""
        await self.start()
        try:
            if self._sock is None:
                raise ConnectionResetError("the spawner died")
            channel.send(self._sock, b"U" if urgent else b"F", [job.fileno()])
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._answers.append(answer)
            async with asyncio.timeout(START_SECONDS):
                pid = await answer
        except (OSError, TimeoutError) as exc:
            raise StagingFailed(f"no stager could be started: {exc}") from exc
        if pid < 0:
            raise StagingFailed(f"no stager could be started: {os.strerror(-pid)}")
        return pid

    def kill(self, pid: int) -> None:
        """Kills the stager `pid`, if it still runs."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                channel.send(self._sock, b"K" + _PID.pack(pid))

    def _on_answer(self, sock: socket.socket) -> None:
        try:
            payload = sock.recv(16)
        except BlockingIOError:
            return
        except OSError:
            payload = b""
        if not payload:
            self._hang_up()
        elif self._answers and not (answer := self._answers.popleft()).done():
            answer.set_result(_PID.unpack(payload)[0])

    def _hang_up(self) -> None:
        """Lets go of the channel; whoever waits for an answer hears that none will come."""
        sock, self._sock = self._sock, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        while self._answers:
            if not (answer := self._answers.popleft()).done():
                answer.set_exception(StagingFailed("the spawner died; ask again"))

    async def close(self) -> None:
        """Ends the process and whatever it forked."""
        self._hang_up()
        process, self._process = self._process, None
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)


def _launch() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            command = [sys.executable, "-m", "mapcelld.spawner", str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return ours, process


class Turns:
    """How many jobs run at once: so many for each user, so many in all."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_IN_ALL)
        self._per_uid: dict[int, tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, uid: int) -> AsyncIterator[None]:
        """Waits until `uid` may have one more stager."""
        gate, waiting = self._per_uid.get(uid, (asyncio.Semaphore(MAX_PER_UID), 0))
        self._per_uid[uid] = gate, waiting + 1
        try:
            async with gate, self._turns:
                yield
        finally:
            gate, waiting = self._per_uid[uid]
            self._per_uid[uid] = gate, waiting - 1
            if waiting == 1:
                del self._per_uid[uid]


class Stagers:
    """Where stagers come from, and how many there may be at once. Rescues have turns of their own."""

    def __init__(self) -> None:
        self._spawner = Spawner()
        self._turns, self._urgent = Turns(), Turns()

    async def open(self) -> None:
        """Starts the spawner, so that the first job need not wait for it."""
        await self._spawner.start()

    def turn(self, uid: int, urgent: bool = False) -> contextlib.AbstractAsyncContextManager[None]:
        """Waits until `uid` may have one more stager."""
        return (self._urgent if urgent else self._turns).turn(uid)

    async def start(self, urgent: bool = False) -> Stager:
        """A new stager, idle until it is sent its job. StagingFailed when none can be had."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = await self._spawner.fork(theirs, urgent)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return Stager(ours, pid, self._spawner)

    async def close(self) -> None:
        """Ends every stager and the spawner."""
        await self._spawner.close()


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
