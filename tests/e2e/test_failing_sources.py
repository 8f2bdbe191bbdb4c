"""Whatever a source does while it is read, nothing of it is published, and the daemon holds what it held before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mapcell
from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import Offer
from support.daemon import DaemonProcess
from support.fuse import hanging, needs_fuse, unmount
from support.models import load, number_of, rows, write_big, write_model
from support.raw import connect, hear, redeem, ticket_for
from support.staging import staging_stopped
from support.users import needs_root


@pytest.fixture
def daemon(unharmed: DaemonProcess) -> DaemonProcess:
    """The daemon of all these tests, which is back at what it held after each."""
    return unharmed


def replaced(path: Path) -> None:
    """Another file takes the place."""
    write_model(path, 9)


def truncated(path: Path) -> None:
    """The file ends before its tensors do."""
    os.truncate(path, 4096)


def deleted(path: Path) -> None:
    """The name is gone; the bytes live on under the descriptors."""
    path.unlink()


def rewritten(path: Path) -> None:
    """Bytes in the middle change."""
    with path.open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"changed")


@pytest.mark.parametrize("change", [replaced, truncated, deleted, rewritten])
def test_source_changes_while_staging(change: Callable[[Path], None], daemon: DaemonProcess, tmp_path: Path) -> None:
    """Nothing is published of a source that changed while it was read, and its memory comes back."""
    path = write_big(tmp_path)
    with staging_stopped(daemon.pid, path) as (pid, result):
        change(path)
        os.kill(pid, signal.SIGCONT)
        error = result()
    assert isinstance(error, StagingFailed)
    assert str(path) in error.message
    assert [r.name for r in rows()] == ["m"]
    if path.exists() and change is replaced:
        assert number_of(load(path)) == 9


@contextlib.contextmanager
def loop_mounted(folder: Path, mib: int) -> Iterator[tuple[Path, Path]]:
    """A file system in a file: where it is mounted, and the file that it lies in."""
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk that fails takes a loop device: {mounted.stderr.decode().strip()}")
    try:
        yield place, image
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@needs_root
def test_disk_fails_midway(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A read error of the kernel in the middle of a file is a StagingFailed that says where, and nothing stays."""
    with loop_mounted(tmp_path, 256) as (place, image):
        path = write_big(place)
        with path.open("r+b") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # The disk loses its second half: reading there is an input/output error from now on.
        os.truncate(image, 128 << 20)
        with pytest.raises(StagingFailed, match=r"reading at byte \d+ failed: Input/output error"):
            load(path)
        assert [r.name for r in rows()] == ["m"]


def test_shared_memory_has_no_name(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Nothing is put in /dev/shm."""
    before = set(os.listdir("/dev/shm"))
    assert number_of(load(write_model(tmp_path / "x.safetensors", 3))) == 3
    assert set(os.listdir("/dev/shm")) - before == set()


_FULL = """
mount -t tmpfs -o size=4k,mode=1777 full /dev/shm
head -c 4096 /dev/zero > /dev/shm/filled
if echo more > /dev/shm/more; then exit 9; fi 2> /dev/null
exec "$@"
"""
_WORKER = """
import mapcell, sys
from mapcell.cli import main

number = mapcell.attach(sys.argv[1], daemon="require")["t0"][0]
status = main(["load", sys.argv[1], "--name", "m", "--residence", "sealed"])
print("answers", status, float(number), float(mapcell.attach("m")["t0"][0]))
"""


@needs_root
def test_full_shared_memory(tmp_path: Path) -> None:
    """Where /dev/shm has no byte left the daemon stages and publishes, and its clients attach, as anywhere."""
    full = ("unshare", "--mount", "bash", "-ec", _FULL, "full")
    path = write_model(tmp_path / "m.safetensors", 4)
    with DaemonProcess(under=full) as running:
        worker = [*full, sys.executable, "-c", _WORKER, str(path)]
        done = subprocess.run(worker, env=running.env(), check=False, capture_output=True, text=True)
        assert done.stdout.endswith("answers 0 4.0 4.0\n"), done.stderr


@needs_fuse
@pytest.mark.parametrize("apart", ["", "copied", "private"])
def test_a_file_system_that_hangs(apart: str, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A FUSE file whose server answers nothing is refused: at once where its mount is seen, else after a deadline.

    What it hangs is a stager that even SIGKILL does not end; the daemon meanwhile serves everybody else.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        with hanging(tmp_path, apart) as fd, connect(daemon.runtime) as sock:
            redeem(sock, ticket_for(daemon.runtime, Offer(("/their/name",))), [fd])
            os.write(write, b"offered ")
            os.write(write, hear(sock)[0].code.encode())
        os._exit(0)
    try:
        os.close(write)
        with open(read, "rb") as answers:
            for _ in range(10):
                assert number_of(mapcell.attach("m")) == 1
            code = answers.read()
    finally:
        status = os.waitpid(pid, 0)[1]
        unmount(tmp_path)
    assert os.waitstatus_to_exitcode(status) == 0
    assert code == b"offered " + (b"staging-failed" if apart == "private" else b"access-denied")
