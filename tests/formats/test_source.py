"""Files as sources of bytes: what is refused, what a short file brings, and who closes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mapcell_formats.errors import FormatError, StagingFailed
from mapcell_formats.source import FileSource, read


def test_reads(tmp_path: Path) -> None:
    """Any part of the file, without moving its offset."""
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 100)
    with FileSource.open(path) as source:
        assert (source.size, source.path) == (25_600, str(path))
        assert read(source, 255, 3) == b"\xff\0\1"
        assert read(source, 25_600, 0) == b""
        assert os.lseek(source.fileno(), 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize(("offset", "nbytes", "says"), [(0, 11, "byte 10"), (10, 1, "byte 10"), (99, 1, "byte 99")])
def test_short(tmp_path: Path, offset: int, nbytes: int, says: str) -> None:
    """A file that ends early brings StagingFailed with the byte at which it did."""
    path = tmp_path / "x"
    path.write_bytes(bytes(10))
    with FileSource.open(path) as source, pytest.raises(StagingFailed, match=f"ended at {says} "):
        read(source, offset, nbytes)


def test_truncated_meanwhile(tmp_path: Path) -> None:
    """So does one that was cut off after it was opened."""
    path = tmp_path / "x"
    path.write_bytes(bytes(10))
    with FileSource.open(path) as source:
        os.truncate(path, 4)
        with pytest.raises(StagingFailed, match="ended at byte 4 while it was being read"):
            read(source, 0, 10)


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(("make", "says"), [(_directory, "a directory"), (os.mkfifo, "not a regular file")])
def test_not_a_file(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    """What is no regular file is refused, a fifo that nobody writes to without waiting for a writer."""
    make(tmp_path / "x")
    with pytest.raises(FormatError, match=f"{tmp_path}/x: is {says}; expected a checkpoint file"):
        FileSource.open(tmp_path / "x")


@pytest.mark.parametrize(("make", "error"), [(lambda path: None, FileNotFoundError), (_socket, OSError)])
def test_cannot_be_opened(tmp_path: Path, make: Callable[[Path], None], error: type[OSError]) -> None:
    """What the system refuses to open stays the system's error."""
    make(tmp_path / "x")
    with pytest.raises(error):
        FileSource.open(tmp_path / "x")


def test_closing(tmp_path: Path) -> None:
    """Closing twice closes nothing else, and a closed source says so."""
    path = tmp_path / "x"
    path.write_bytes(b"12")
    source = FileSource.open(path)
    source.close()
    with path.open("rb") as other:
        source.close()
        assert other.read() == b"12"
    with pytest.raises(ValueError, match="is closed"):
        read(source, 0, 1)


def test_threads(tmp_path: Path) -> None:
    """Threads that read side by side get what they asked for."""
    path = tmp_path / "x"
    path.write_bytes(b"".join(bytes([i]) * 1000 for i in range(200)))
    wrong: list[int] = []

    def work(start: int) -> None:
        for i in range(start, 200, 4):
            if read(source, 1000 * i, 1000) != bytes([i]) * 1000:
                wrong.append(i)

    with FileSource.open(path) as source:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
