"""The spawner: a small process that forks stagers, so that each starts in a millisecond from a clean image.

The daemon cannot fork them itself: it runs an event loop and libzmq's threads, and a fork would copy both. The spawner
imports what a stager needs, then only forks, kills and reaps; it never touches a foreign byte, and never waits for a
child. Messages, one to a datagram: "F" and a job channel's descriptor to fork (answered by the pid as 4 bytes, or an
errno as a negative number), "U" to fork one that is in a hurry, "K" and a pid as 4 bytes to kill. It ends with the
daemon.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys

from mapcelld import channel, stager
from mapcelld.scheduling import take_short_turns

_PR_SET_PDEATHSIG = 1
_NICENESS = 10
_PID = struct.Struct("<i")


def main() -> None:
    """Serves the socket whose descriptor is the first argument until its other end is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _die_with_parent()
        _preload()
        _serve(sock)


def _serve(sock: socket.socket) -> None:
    children: set[int] = set()
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    # Not select: the daemon passes its end by number, and has more than 1,024 descriptors when many leases run.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        _reap(children)
        if sock.fileno() in ready and not _obey(sock, children):
            break
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _obey(sock: socket.socket, children: set[int]) -> bool:
    payload, fds = channel.receive(sock, 16, 1)
    if not payload:
        return False
    if payload in (b"F", b"U") and fds:
        try:
            pid = _fork(sock, fds[0], urgent=payload == b"U")
            children.add(pid)
        # Too many processes for now: the jobs that run are not to die of it.
        except OSError as exc:
            pid = -(exc.errno or 1)
        os.close(fds[0])
        channel.send(sock, _PID.pack(pid))
    elif payload[:1] == b"K" and len(payload) == 1 + _PID.size:
        (pid,) = _PID.unpack(payload[1:])
        # Only a child that was not reaped yet: its pid cannot be anybody else's.
        if pid in children:
            os.kill(pid, signal.SIGKILL)
    return True


def _fork(sock: socket.socket, fd: int, urgent: bool) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sock.close()
        _die_with_parent()
        if os.getppid() != parent:
            # It died before the kernel was asked to tell, and would never be missed.
            raise SystemExit(1)
        _offer_to_the_oom_killer()
        # Staging may take its time; whoever attaches meanwhile, and the workers' own answers, may not.
        if not urgent:
            os.nice(_NICENESS)
            take_short_turns()
        with socket.socket(fileno=fd) as job:
            stager.run(job)
        status = 0
    except SystemExit:
        status = 0
    finally:
        # No interpreter shutdown: it would run the spawner's own exit handlers a second time.
        os._exit(status)


def _reap(children: set[int]) -> None:
    for pid in list(children):
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            children.discard(pid)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _offer_to_the_oom_killer() -> None:
    # It is the stager that allocates: its job fails then, and nobody loses the daemon with everything that it holds.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def _preload() -> None:
    import concurrent.futures.thread
    import ctypes.util

    import blake3
    import ml_dtypes
    import numpy as np

    _ = (concurrent.futures.thread, ctypes.util, blake3, ml_dtypes, np)


if __name__ == "__main__":
    main()
