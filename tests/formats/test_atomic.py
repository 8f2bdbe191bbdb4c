"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcell_formats.atomic import write_atomically


def test_writes(tmp_path: Path) -> None:
    """All chunks arrive in order, small and large, and their number of bytes is returned."""
    path = tmp_path / "x"
    chunks = [b"a", memoryview(bytes(3_000_000)), bytearray(b"b"), b""]
    assert write_atomically(path, chunks) == 3_000_002
    assert path.read_bytes() == b"a" + bytes(3_000_000) + b"b"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o600), (0, 0o600), (0o277, 0o400)])
def test_mode(tmp_path: Path, umask: int, mode: int) -> None:
    """Only the owner may read it, or fewer where the umask says so, whatever the file before it allowed."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(umask)
    try:
        write_atomically(path, [b"new"])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


def _failing(error: BaseException) -> Iterator[bytes]:
    yield bytes(100_000)
    raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("chunk"), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_the_old_file(tmp_path: Path, error: BaseException, existed: bool) -> None:
    """Whatever goes wrong on the way, the old file stays, nothing else is left, and no descriptor is open."""
    path = tmp_path / "x"
    if existed:
        path.write_bytes(b"old")
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(type(error)):
        write_atomically(path, _failing(error))
    assert os.listdir(tmp_path) == ["x"] * existed
    assert not existed or path.read_bytes() == b"old"
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """When the system refuses to write more, here by a limit on file sizes, the old file stays."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_atomically(path, [bytes(1 << 19)] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["x"]
    assert path.read_bytes() == b"old"


def test_a_map_keeps_the_old_bytes(tmp_path: Path) -> None:
    """Who maps the old file goes on seeing it after it was replaced by a shorter one."""
    path = tmp_path / "x"
    path.write_bytes(b"old" * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        write_atomically(path, [b"new"])
        assert mapped[-3:] == b"old"
    assert path.read_bytes() == b"new"


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    """The file behind a link is replaced, and the link stays."""
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, [b"new"])
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_long_name(tmp_path: Path) -> None:
    """A name as long as the file system takes can be written."""
    path = tmp_path / ("n" * 255)
    write_atomically(path, [b"x"])
    assert path.read_bytes() == b"x"


def test_folders(tmp_path: Path) -> None:
    """A folder is not replaced, and a missing one is not made."""
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        write_atomically(tmp_path, [b"x"])
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "x", [b"x"])
    assert os.listdir(tmp_path) == []
