"""The client's half of the guard: leases of mapped files, and the one thread that hears of their replacement.

Somebody wants to write to a file that this process maps; the daemon has copied it and says Remap on the lease's
connection. The thread maps the copy over the same addresses and answers; the writer waits for that. It takes no lock
that other code may hold, needs the interpreter's lock for some microseconds, and ends with the last such lease.

A child that is forked maps the files too, but may not read from its parent's connections: two readers would split
their messages. It gets a lease of its own before it is there, and listens to that.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from weakref import ReferenceType, ref

from mapcell_formats import messages, wire
from mapcell_formats.errors import DaemonUnavailable, MapcellError, ProtocolError
from mapcell_formats.messages import Attach, Extend, Extended, Grant, Present, Remap, Remapped

from .connection import ControlClient, listens
from .leasing import KEEPER, Lease, close_all, obtain
from .mapping import SegmentMap

# How long a fork may be held up by a daemon that does not answer; the child then maps what nobody replaces for it.
_EXTEND_SECONDS = 1.0
# A daemon under systemd is back in a fraction of a second; nobody else's is worth the wait.
_BACK_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_ASK_SECONDS = 1.0
# A program that attaches over and over need not start a thread each time.
_LINGER_SECONDS = 0.05
_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
_ROOM = socket.CMSG_LEN(array("i").itemsize)


class GuardedLease(Lease):
    """A lease of files that may be replaced under their maps. `folder` is its daemon's."""

    __slots__ = ("_ears", "_extensions", "_maps", "folder")

    def __init__(self, sock: socket.socket, name: str, folder: str) -> None:
        self.folder = folder
        self._maps: list[ReferenceType[SegmentMap] | None] = []
        self._extensions: SimpleQueue[int] = SimpleQueue()
        self._ears: _Ears | None = None
        super().__init__(sock, name)

    def listen(self, maps: Sequence[SegmentMap | None]) -> None:
        """Has `maps`, one for each segment, follow their files' replacement from here on."""
        self._maps = [None if m is None else ref(m) for m in maps]
        LISTENER.add(self)

    def close(self) -> None:
        """Ends the lease. A second call does nothing."""
        ears, self._ears = self._ears, None
        if ears is not None:
            ears.leave(self.fileno())
        super().close()

    def _look_out(self) -> None:
        # The thread sees the connection's end before anybody else does.
        return

    # --- on the thread ----------------------------------------------------------------------------------------------

    def entered(self, ears: _Ears | None) -> None:
        """Who listens to the connection."""
        self._ears = ears

    def hear(self) -> bool:
        """Does what the daemon says. False at the end of the connection."""
        while True:
            try:
                with _borrowed(self.fileno()) as sock:
                    payload, ancillary, _, _ = sock.recvmsg(messages.MAX_HANDLE_BYTES, _ROOM, _FLAGS)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not payload:
                return False
            fds = array("i", b"".join(data for _, kind, data in ancillary if kind == socket.SCM_RIGHTS))
            try:
                self._obey(wire.decode(payload, messages.CALLS)[1], fds)
            except ProtocolError:
                return False
            finally:
                close_all(fds)

    def _obey(self, message: object, fds: array[int]) -> None:
        if isinstance(message, Remap) and len(fds) == 1:
            self.replace_map(message.segment, fds[0], message.nbytes)
            self._say(Remapped(message.segment))
        elif isinstance(message, Extended) and len(fds) == 1:
            self._extensions.put(fds.pop())
        else:
            self._extensions.put(-1)

    def replace_map(self, number: int, fd: int, nbytes: int) -> None:
        """Maps `fd` over segment `number`, if anybody still looks at it. ProtocolError when it is another size."""
        held = self._maps[number] if 0 <= number < len(self._maps) else None
        segment = held() if held is not None else None
        if segment is not None:
            if segment.nbytes != nbytes:
                raise ProtocolError(f"a segment of {segment.nbytes} bytes was replaced by one of {nbytes}")
            segment.replace(fd)

    def lease_anew(self) -> None:
        """Goes on with the daemon that came back, under which the files may be others. Raises what it refuses with."""
        if not listens(self.folder):
            raise DaemonUnavailable(f"no daemon listens in {self.folder}")
        client = ControlClient(self.folder)
        try:
            granted = obtain(client, Attach(self.name), time.monotonic() + _ASK_SECONDS, None)
        finally:
            client.close()
        self.go_on(*granted)

    def go_on(self, grant: Grant, fds: Sequence[int], sock: socket.socket) -> None:
        """As Lease has it; what is mapped follows, since files may be copies by now."""
        try:
            for number, nbytes in enumerate(grant.segments):
                self.replace_map(number, fds[1 + number], nbytes)
        except BaseException:
            sock.close()
            raise
        finally:
            close_all(fds)
        self.replace(sock)
        if grant.guarded:
            LISTENER.add(self)

    def _say(self, message: object) -> bool:
        try:
            with _borrowed(self.fileno()) as sock:
                sock.send(wire.encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    # --- around a fork ----------------------------------------------------------------------------------------------

    def ask_for_child(self) -> bool:
        """Asks for a lease for a child. Whether the question is on its way."""
        return self._ears is not None and self._say(Extend())

    def childs(self, until: float) -> int:
        """The connection that was asked for, the caller's; -1 when there is none by `until`."""
        try:
            return self._extensions.get(timeout=max(until - time.monotonic(), 0.001))
        except Empty:
            return -1

    def become_childs(self, fd: int) -> None:
        """In the child: goes on with its own connection, or keeps the parent's alive and never reads from it."""
        self._ears = None
        self._extensions = SimpleQueue()
        if fd >= 0:
            self.replace(socket.socket(fileno=fd))
            self._say(Present())
            LISTENER.add(self)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


@dataclass(slots=True)
class _Astray:
    """A lease whose daemon went away: when to look again, and until when that is worth it."""

    lease: ReferenceType[GuardedLease]
    again: float
    until: float
    pause: float = _FIRST_PAUSE


class _Ears:
    """What one thread listens to. Leases hold on to it as well, so that its descriptors outlive the last of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._leases: dict[int, ReferenceType[GuardedLease]] = {}
        self._astray: list[_Astray] = []
        self._lingers = False
        self.deaf = False

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes what it listens with. In a child that is its copies: the parent goes on."""
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)
            self._epoll.close()

    def enter(self, lease: GuardedLease) -> None:
        """Listens to `lease` as well."""
        fd = lease.fileno()
        self._leases[fd] = ref(lease)
        lease.entered(self)
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def leave(self, fd: int) -> None:
        """Listens to it no more. From any thread, the garbage collector's moments included: so without a lock."""
        self._leases.pop(fd, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(fd)
        # A thread that lingers looks by itself before it goes on.
        if not self._leases and not self._lingers:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._bell, 1)

    def leases(self) -> list[GuardedLease]:
        """Every lease that is listened to."""
        return [lease for held in list(self._leases.values()) if (lease := held()) is not None]

    def idle(self) -> bool:
        """Whether there is nothing to listen to, and nothing to look for."""
        return not self._leases and not self._astray

    def run(self) -> None:
        """Listens until there is nothing left to."""
        while True:
            for fd, _ in self._epoll.poll(self._pause()):
                self._serve(fd)
            self._look_for_daemons()
            if self.idle() and not self._linger() and LISTENER.ends(self):
                return

    def _linger(self) -> bool:
        """Waits whether another lease comes. Whether there was anything to hear."""
        self._lingers = True
        try:
            return bool(self._epoll.poll(_LINGER_SECONDS))
        finally:
            # Before it is asked who is left: whoever leaves from here on rings.
            self._lingers = False

    def _pause(self) -> float:
        # The last one may have gone, and not have rung, while something was heard that it had to say.
        if self.idle():
            return 0
        if not self._astray:
            return -1
        return max(min(a.again for a in self._astray) - time.monotonic(), 0)

    def _serve(self, fd: int) -> None:
        if fd == self._bell:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            return
        held = self._leases.get(fd)
        lease = held() if held is not None else None
        # Ended meanwhile, by another thread.
        if lease is None or lease.fileno() != fd:
            return
        try:
            alive = lease.hear()
        # A copy that could not be mapped: the daemon waits for an answer, and names this process in its log.
        except OSError:
            return
        if not alive:
            self._lose(lease, fd)

    def _lose(self, lease: GuardedLease, fd: int) -> None:
        lease.entered(None)
        now = time.monotonic()
        # Before it is taken out: the thread is not to end over it.
        self._astray.append(_Astray(ref(lease), now, now + _BACK_SECONDS))
        self.leave(fd)

    def _look_for_daemons(self) -> None:
        now = time.monotonic()
        due = [a for a in self._astray if a.again <= now]
        for astray in due:
            if self._settled(astray, now):
                self._astray.remove(astray)

    def _settled(self, astray: _Astray, now: float) -> bool:
        lease = astray.lease()
        if lease is None or lease.fileno() < 0:
            return True
        try:
            lease.lease_anew()
        except DaemonUnavailable:
            astray.again, astray.pause = now + astray.pause, min(2 * astray.pause, _LONGEST_PAUSE)
            if now < astray.until:
                return False
            KEEPER.watch(lease)
        except (MapcellError, OSError):
            # The daemon does not know it, or not yet: what is mapped here stays, and whoever attaches next looks again.
            KEEPER.watch(lease)
        return True


class Listener:
    """The thread of this process, while there are leases to listen to."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ears: _Ears | None = None
        self._forking = Lock()
        self._children: list[tuple[GuardedLease, int]] = []

    def add(self, lease: GuardedLease) -> None:
        """Listens to `lease`, on a new thread unless there is one."""
        with self._lock:
            if self._ears is None or self._ears.deaf:
                self._ears = _Ears()
                self._ears.enter(lease)
                Thread(target=self._ears.run, name="mapcell-listener", daemon=True).start()
            else:
                self._ears.enter(lease)

    def ends(self, ears: _Ears) -> bool:
        """Whether the thread may end, since nothing came meanwhile."""
        with self._lock:
            ears.deaf = ears.idle()
            if ears.deaf and self._ears is ears:
                self._ears = None
            return ears.deaf

    def before_fork(self) -> None:
        """Gets a lease for the child for each that this process listens to."""
        self._forking.acquire()
        until = time.monotonic() + _EXTEND_SECONDS
        held = self._ears.leases() if self._ears is not None else []
        asked = [lease for lease in held if lease.ask_for_child()]
        fds = {id(lease): lease.childs(until) for lease in asked}
        self._children = [(lease, fds.get(id(lease), -1)) for lease in held]

    def after_in_parent(self) -> None:
        """Leaves the child's connections to the child."""
        children, self._children = self._children, []
        close_all([fd for _, fd in children if fd >= 0])
        self._forking.release()

    def after_in_child(self) -> None:
        """Listens to the child's own connections; of the parent's it knows nothing."""
        children, self._children = self._children, []
        ears, self._ears = self._ears, None
        self._lock, self._forking = Lock(), Lock()
        if ears is not None:
            # The thread that would have let go of it is not in this process.
            ears.close()
        for lease, fd in children:
            lease.become_childs(fd)


LISTENER = Listener()
os.register_at_fork(
    before=LISTENER.before_fork,
    after_in_parent=LISTENER.after_in_parent,
    after_in_child=LISTENER.after_in_child,
)
