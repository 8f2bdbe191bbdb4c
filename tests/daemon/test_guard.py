"""The kernel's half of the guard: what it grants, what it refuses, and how long anybody waits."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcelld import filesystems, guard
from mapcelld.segment import Segment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of four bytes."""
    (tmp_path / "f").write_bytes(b"data")
    return tmp_path / "f"


@pytest.fixture
def segment(path: Path) -> Iterator[Segment]:
    """A segment over it, as the daemon holds it."""
    held = Segment(os.open(path, os.O_RDONLY | os.O_CLOEXEC), 4)
    yield held
    held.close()


@contextlib.contextmanager
def unminded() -> Iterator[None]:
    """Ignores what tells of a writer."""
    before = signal.signal(guard.SIGNAL, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(guard.SIGNAL, before)


def knocks(path: Path) -> bool:
    """Whether a writer may come right now; it does not wait."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return False
    return True


def test_a_guard_from_first_to_last(path: Path, segment: Segment) -> None:
    """It holds writers and nobody else, tells of the first, and lets all go when it is released, once."""
    with unminded():
        assert guard.refusal(segment.fileno()) == ""
        assert knocks(path)
        assert segment.guard() == ""
        assert path.read_bytes() == b"data"
        path.chmod(0o600)
        assert not segment.broken()
        assert not knocks(path)
        assert segment.broken()
        assert not segment.changed()
        assert (segment.let_go(), segment.let_go()) == (True, False)
        assert knocks(path)
        assert not segment.broken()


def test_a_guard_ends_with_its_description(path: Path, segment: Segment) -> None:
    """Another descriptor of the description keeps it, as the manager's store does; another description does not."""
    with unminded():
        assert segment.guard() == ""
        kept, other = os.dup(segment.fileno()), segment.reopen()
        segment.close()
        try:
            assert not knocks(path)
            assert guard.broken(kept)
            adopted = Segment(os.dup(kept), 4)
            adopted.regard(guard.stamp(kept))
            assert adopted.broken()
            adopted.close()
        finally:
            os.close(kept)
        assert knocks(path)
        os.close(other)


def test_writing_is_seen_by_the_stamp(path: Path, segment: Segment) -> None:
    """What no guard saw shows in size or time; what no guard hinders does not."""
    before = guard.stamp(segment.fileno())
    path.chmod(0o600)
    path.rename(path.with_name("g"))
    assert guard.stamp(segment.fileno()) == before
    os.truncate(path.with_name("g"), 3)
    assert guard.stamp(segment.fileno()) != before


def test_refusals(path: Path, segment: Segment) -> None:
    """A file that is open for writing cannot be guarded, and the reason is said."""
    with path.open("r+b"):
        assert guard.refusal(segment.fileno()) == segment.guard() == "it is open for writing"
    assert not segment.guarded


@pytest.mark.parametrize(
    ("kind", "says"),
    [(0xEF53, ""), (0x01021994, ""), (0x794C7630, "overlay"), (0x6969, "nfs"), (0x65735546, "type 0x65735546")],
)
def test_file_systems(kind: int, says: str, monkeypatch: pytest.MonkeyPatch, segment: Segment) -> None:
    """Only where every write passes this kernel is a file guarded."""
    monkeypatch.setattr(filesystems, "kind_of", lambda fd: kind)
    reason = guard.refusal(segment.fileno())
    assert says in reason
    assert bool(reason) == bool(says)


@pytest.mark.parametrize(
    ("kernel", "deadline", "seconds"),
    [("45\n", 5.0, 5.0), ("4\n", 5.0, 3.6), ("0\n", 5.0, 5.0), ("odd", 5.0, 0.0), (None, 5.0, 0.0)],
)
def test_limit(
    kernel: str | None, deadline: float, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer waits no longer than the kernel would hold it; where that is unknown nothing is guarded."""
    setting = tmp_path / "lease-break-time"
    if kernel is not None:
        setting.write_text(kernel)
    monkeypatch.setattr(guard, "_BREAK_TIME", setting)
    assert guard.limit(deadline) == pytest.approx(seconds)
    assert guard.largest(deadline) == int(guard.limit(deadline) / 2 * guard.COPY_RATE)
