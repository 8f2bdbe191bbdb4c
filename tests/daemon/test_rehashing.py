"""A stager that hashes what is mapped: what it says of files that stayed, were touched, and were changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mapcell_formats.digest import file_identity
from mapcell_formats.errors import StagingFailed
from mapcell_formats.manifest import Manifest
from mapcell_formats.messages import Hashed, Job, Manner
from mapcelld import memfd, rehashing
from mapcelld.jobs import JobChannel
from support.checkpoints import write_safetensors

from .test_stager import job, working

TENSORS = {"a": np.arange(9, dtype=np.float32), "b": np.ones((3, 3), np.int8)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint."""
    return write_safetensors(tmp_path / "x.safetensors", TENSORS, {"format": "np"})


class Told(JobChannel):
    """Remembers what was reported, and the manifest that came with it."""

    def __init__(self) -> None:
        self.reports: list[object] = []
        self.manifest: Manifest | None = None

    def tell(self, report: object, fds: Sequence[int] = ()) -> None:
        """Remembers."""
        self.reports.append(report)
        if isinstance(report, Hashed) and report.manifest:
            (fd,) = fds
            assert memfd.is_sealed(fd, report.manifest)
            self.manifest = Manifest(os.pread(fd, report.manifest, 0))


def published(file: Path, warm: bool = False) -> tuple[list[int], Job, str]:
    """The descriptors of `file` mapped in place (the caller's), the job to hash them, and the sealed one's digest."""
    with working() as sealing:
        sealing.begin(job(file, residence="sealed"), [])
        digest = sealing.to_the_end()[0].version
    with working() as desk:
        desk.begin(job(file, residence="mapped", manner=Manner(warm=warm)), [])
        held, _ = desk.to_the_end()
        fds, desk.fds = desk.fds, []
    return fds, job("", kind="hash", base=held.version, identities=(file_identity(file.stat()),)), digest


@pytest.fixture(autouse=True)
def stays_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process keeps its own priority."""
    monkeypatch.setattr(rehashing, "_give_way", lambda: None)


def _nothing(file: Path) -> None:
    pass


def _touch(file: Path) -> None:
    file.chmod(0o640)


def _replace(file: Path) -> None:
    os.replace(write_safetensors(file.with_name("new"), {}), file)


def _rewrite(file: Path) -> None:
    with file.open("r+b") as changing:
        changing.seek(-1, os.SEEK_END)
        changing.write(b"X")
    os.utime(file, ns=(0, 0))


def _forge(file: Path) -> None:
    info = file.stat()
    _rewrite(file)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(
    ("harm", "warm", "sound", "says"),
    [
        (_nothing, False, True, ""),
        (_touch, False, True, ""),
        (_replace, False, True, ""),
        (_rewrite, False, False, "changed since they were mapped"),
        (_nothing, True, True, ""),
        (_touch, True, True, ""),
        (_rewrite, True, False, "changed since they were mapped"),
        (_forge, True, False, "its bytes are not what they were"),
    ],
)
def test_hashed(file: Path, harm: Callable[[Path], None], warm: bool, sound: bool, says: str) -> None:
    """The digest is the sealed checkpoint's; a manifest comes when it says something else than the one before."""
    fds, order, digest = published(file, warm)
    harm(file)
    told = Told()
    rehashing.rehash(told, order, fds)
    report = told.reports[-1]
    assert isinstance(report, Hashed)
    assert report.digest == (digest if sound else "")
    assert says in report.detail
    assert (told.manifest is not None) is (sound is not warm)
    if told.manifest is not None:
        about = told.manifest.description()
        assert (about.verified, about.version, about.metadata) == (sound, order.base, {"format": "np"})
        assert list(told.manifest.names()) == ["a", "b"]
        assert (told.manifest.digest(0) != bytes(32)) is sound


def test_touched_while_it_is_hashed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of bytes that may have changed between the first and the last that was read."""
    fds, order, _ = published(file)
    real = rehashing._digests

    def touched(*args: object) -> list[bytes]:
        found = real(*args)  # type: ignore[arg-type]
        file.chmod(0o600)
        return found

    monkeypatch.setattr(rehashing, "_digests", touched)
    told = Told()
    with pytest.raises(StagingFailed, match="touched while it was hashed"):
        rehashing.rehash(told, order, fds)
    assert not any(isinstance(report, Hashed) for report in told.reports)


def test_what_was_rescued_into_memory(file: Path) -> None:
    """Sealed memory in a file's place is not compared with the file: nobody can have changed it."""
    fds, order, digest = published(file)
    data = os.pread(fds[1], file.stat().st_size, 0)
    os.close(fds.pop())
    fds.append(memfd.sealed_copy("rescued", data))
    told = Told()
    rehashing.rehash(told, order, fds)
    assert isinstance(told.reports[-1], Hashed)
    assert told.reports[-1].digest == digest


def test_gives_way() -> None:
    """In a process of its own: the lowest priority for processor and disk."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            # The fixture's stand-in is this process's; the module's own is what a stager runs.
            import importlib

            importlib.reload(rehashing)._give_way()
            status = 0 if (os.nice(0), os.sched_getscheduler(0)) == (19, os.SCHED_IDLE) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
