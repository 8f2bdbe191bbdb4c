"""Messages with descriptors: whole or not at all, and nothing leaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mapcell_formats.errors import ProtocolError
from mapcelld import channel
from support.users import OTHER_UID, as_user, needs_root

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a channel that never blocks."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def null() -> Iterator[int]:
    """A descriptor to send."""
    fd = os.open("/dev/null", os.O_RDONLY)
    yield fd
    os.close(fd)


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("count", [0, 1, 253])
def test_round_trip(pair: Pair, null: int, count: int) -> None:
    """A message and up to 253 descriptors arrive together, closed on exec, and the sender keeps its own."""
    channel.send(pair[0], b"hello", [null] * count)
    payload, fds = channel.receive(pair[1], 100, 253)
    with channel.owned(fds):
        assert (payload, len(fds)) == (b"hello", count)
        assert all(os.path.samestat(os.fstat(fd), os.fstat(null)) and not os.get_inheritable(fd) for fd in fds)
    os.fstat(null)


@pytest.mark.parametrize(("nbytes", "fds"), [(101, 0), (100, 3), (101, 3), (5, 200)])
def test_cut_off(pair: Pair, null: int, nbytes: int, fds: int) -> None:
    """A message or descriptors beyond the limit are refused, and those that came are closed."""
    before = open_descriptors()
    channel.send(pair[0], b"x" * nbytes, [null] * fds)
    with pytest.raises(ProtocolError, match="message of more than 100 bytes or 2 descriptors"):
        channel.receive(pair[1], 100, 2)
    assert open_descriptors() == before


def test_whole_messages(pair: Pair) -> None:
    """Two messages stay two, and the end of the stream is an empty one."""
    channel.send(pair[0], b"one")
    channel.send(pair[0], b"two")
    pair[0].close()
    assert [channel.receive(pair[1], 100, 0)[0] for _ in range(3)] == [b"one", b"two", b""]


def test_peek_installs_nothing(pair: Pair, null: int) -> None:
    """Peeking shows the message, leaves it in the queue with its descriptors, and opens none of them here."""
    before = open_descriptors()
    channel.send(pair[0], b"ticket", [null] * 200)
    assert [channel.peek(pair[1], 100) for _ in range(2)] == [b"ticket"] * 2
    assert open_descriptors() == before
    payload, fds = channel.receive(pair[1], 100, 200)
    assert (payload, len(fds)) == (b"ticket", 200)
    channel.close_all(fds)
    with pytest.raises(BlockingIOError):
        channel.peek(pair[1], 100)


def test_peek_at_too_much(pair: Pair) -> None:
    """A longer message is refused, and still there to be discarded."""
    channel.send(pair[0], b"x" * 101)
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        channel.peek(pair[1], 100)
    assert channel.discard(pair[1])


def test_discard_installs_nothing(pair: Pair, null: int) -> None:
    """Discarding takes one message, drops its descriptors in the kernel, and tells the end of the stream."""
    before = open_descriptors()
    channel.send(pair[0], b"x" * 1000, [null] * 200)
    channel.send(pair[0], b"next")
    assert channel.discard(pair[1])
    assert open_descriptors() == before
    assert channel.receive(pair[1], 100, 0) == (b"next", [])
    pair[0].close()
    assert not channel.discard(pair[1])


def test_unread(pair: Pair) -> None:
    """What the other side has not taken yet is counted."""
    assert channel.unread(pair[0]) == 0
    channel.send(pair[0], b"x" * 1000)
    assert channel.unread(pair[0]) >= 1000
    pair[1].recv(2000)
    assert channel.unread(pair[0]) == 0


def test_owned_closes_whatever_happens(null: int) -> None:
    """Descriptors are closed when the block ends, also those that were closed before and those added meanwhile."""
    before = open_descriptors()
    fds = [os.dup(null)]

    def use() -> None:
        with channel.owned(fds):
            fds.append(os.dup(null))
            os.close(fds[0])
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert open_descriptors() == before


def test_credentials(pair: Pair) -> None:
    """Who is at the other end, with all its groups."""
    who = channel.credentials(pair[0])
    assert (who.pid, who.uid, who.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert who.groups == {os.getgid(), *os.getgroups()}
    assert channel.supplementary_groups(os.getpid(), os.getuid()) == frozenset(os.getgroups())
    assert channel.supplementary_groups(os.getpid(), os.getuid() + 1) == frozenset()
    assert channel.supplementary_groups(2**22 + 1, 0) == frozenset()


def _as_seen_by_itself() -> list[object]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        who = channel.credentials(a)
        return [who.uid, who.gid, sorted(who.groups)]


@needs_root
@pytest.mark.parametrize("uid", [OTHER_UID, 4_000_000_000])
def test_credentials_of_another_user(uid: int) -> None:
    """Ids are unsigned: those above 2^31 are not negative."""
    assert as_user(uid, _as_seen_by_itself) == [uid, uid, [uid]]


@needs_root
@pytest.mark.parametrize("count", [1, 64, 65, 256, 257, 65_536])
def test_many_groups(count: int) -> None:
    """Every supplementary group of a peer counts, up to as many as Linux lets a process have (NGROUPS_MAX)."""
    groups = range(100_000, 100_000 + count)
    seen = as_user(OTHER_UID, lambda: _as_seen_by_itself()[2], groups)
    assert seen == [OTHER_UID, *groups]
