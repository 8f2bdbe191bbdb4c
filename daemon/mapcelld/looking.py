"""What lies at a source's path now, and the folders in which a change of it would show. Runs in stagers only.

A path is followed name by name, as the kernel does it: every folder above it and every symbolic link on the way is a
place where a rename can put another file under it, such as the snapshot folders of Hugging Face's cache or a link
"current" that is switched. Source: inotify(7), path_resolution(7), fcntl(2) on F_SETLEASE.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mapcell_formats import locate
from mapcell_formats.digest import file_identity, without_ctime
from mapcell_formats.errors import MapcellError, NotFound
from mapcell_formats.messages import Job, Looked, Place
from mapcell_formats.source import FileSource
from mapcelld import channel, filesystems, inotify, intake
from mapcelld.jobs import JobChannel

# As many symbolic links as the kernel follows.
_MAX_LINKS = 40
# What one source may have watched: a checkpoint of 249 files, each a link to elsewhere, takes some hundreds.
MAX_PLACES = 1024
# Looked at anew when a file was swapped between opening it and watching its folder.
_ROUNDS = 3
# Their servers change files for other hosts, of which this kernel hears nothing.
_REMOTE = {"nfs", "ceph", "lustre", "gpfs"}


@dataclass(frozen=True, slots=True)
class Name:
    """`name` in `folder`. `vital` when a change of it alone, not of a folder above, leads the path elsewhere."""

    folder: str
    name: str
    vital: bool


def look(jobs: JobChannel, job: Job, fds: list[int]) -> None:
    """Watches what `job` names over the instance fds[0], if there is one, and says what lies there."""
    # Breaking the file lease by which a writer is noticed would end this process.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    jobs.tell(_looked(job, _Watches(fds[0] if fds else -1)))


def names(path: str) -> list[Name]:
    """Every name that the kernel looks up on the way to what the absolute `path` leads to, as far as there is a way."""
    folder, found, links = "/", list[Name](), 0
    pending = deque(path.split("/"))
    while pending:
        part = pending.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            folder = os.path.dirname(folder)
            continue
        here = os.path.join(folder, part)
        try:
            target = os.readlink(here)
        except OSError as exc:
            last = not any(pending) or exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
            found.append(Name(folder, part, last))
            if exc.errno != errno.EINVAL:
                break
            folder = here
            continue
        found.append(Name(folder, part, True))
        links += 1
        if links > _MAX_LINKS:
            break
        folder = "/" if target.startswith("/") else folder
        pending.extendleft(reversed(target.split("/")))
    return found


class _Watches:
    """What one look has put under watch."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._numbers: dict[str, int] = {}
        self.places: dict[Place, None] = {}
        self.fault = "" if fd >= 0 else "the kernel gives no inotify instance: raise fs.inotify.max_user_instances"

    def cover(self, path: str) -> None:
        """Watches every place on the way to `path`."""
        for one in names(path):
            self.watch(one.folder, one.name, one.vital)

    def watch(self, folder: str, name: str, vital: bool) -> None:
        """Watches `name` in `folder`, any name when it is ""."""
        if folder not in self._numbers:
            self._numbers[folder] = self._add(folder, vital)
        if self._numbers[folder] >= 0 and len(self.places) < MAX_PLACES:
            self.places[Place(self._numbers[folder], inotify.printable(name))] = None
        elif len(self.places) >= MAX_PLACES:
            self.fault = self.fault or f"it leads through more than {MAX_PLACES} folders and links"

    def _add(self, folder: str, vital: bool) -> int:
        if self._fd < 0:
            return -1
        try:
            number = inotify.add(self._fd, folder)
        except OSError as exc:
            if vital and exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.fault = self.fault or _advice(folder, exc)
            return -1
        if vital:
            self.fault = self.fault or _remote(folder)
        return number


def _advice(folder: str, exc: OSError) -> str:
    if exc.errno == errno.ENOSPC:
        return "the watches of this user are used up: raise fs.inotify.max_user_watches"
    if exc.errno == errno.EACCES:
        return f"the daemon's user may not list {folder}"
    return f"{folder} cannot be watched: {exc.strerror}"


def _remote(folder: str) -> str:
    """Why the kernel does not hear of every change in `folder`, "" when it does."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = filesystems.kind_of(fd)
    finally:
        os.close(fd)
    kind = filesystems.ANSWERING.get(number, f"{number:#x}")
    known = number in filesystems.ANSWERING and kind not in _REMOTE
    return "" if known else f"it lies on a file system ({kind}) that does not tell of every change"


def _looked(job: Job, watches: _Watches) -> Looked:
    path = job.paths[0]
    watches.cover(path)
    try:
        if job.kind == "look-claimed":
            state, identities = _claimed(path, set(map(without_ctime, job.identities)), watches)
        else:
            state, identities = _configured(job, watches)
        detail = ""
    except FileNotFoundError:
        state, identities, detail = "missing", (), f"{path}: no such file"
    except NotFound as exc:
        state, identities, detail = "missing", (), exc.message
    except (OSError, MapcellError) as exc:
        state, identities, detail = "broken", (), exc.message if isinstance(exc, MapcellError) else str(exc)
    return Looked(state, identities, tuple(watches.places), watches.fault, detail)


def _configured(job: Job, watches: _Watches) -> tuple[str, tuple[str, ...]]:
    path = job.paths[0]
    for _ in range(_ROUNDS):
        if os.path.isdir(path):
            watches.watch(os.path.realpath(path), "", True)
        sources = intake.open_configured(job.paths, job.roots)
        try:
            for source in sources:
                watches.cover(source.path)
            state = "writing" if any(map(_being_written, sources)) else "there"
            identities = tuple(file_identity(os.fstat(s.fileno())) for s in sources)
            if all(map(_still_there, sources)):
                return state, identities
        finally:
            intake.close_sources(sources)
    return "writing", identities


@dataclass(frozen=True, slots=True)
class _Glimpsed:
    """A folder whose files are found, and not opened for reading."""

    path: str

    def names(self) -> Iterable[str]:
        """Asked of nobody: a claimed path is a file's."""
        return ()

    def open(self, name: str) -> FileSource:
        """The file `name` in it; OSError as `os.open` raises it."""
        path = os.path.join(self.path, name)
        return FileSource(os.open(path, os.O_PATH | os.O_CLOEXEC), path)


def _claimed(path: str, known: set[str], watches: _Watches) -> tuple[str, tuple[str, ...]]:
    """As `_configured`, but nothing is read that the claimant did not offer for reading before."""
    with channel.owned([os.open(path, os.O_PATH | os.O_CLOEXEC)]) as (fd,):
        info = os.fstat(fd)
        first = file_identity(info)
        if not stat.S_ISREG(info.st_mode) or without_ctime(first) not in known:
            return "there", (first,)
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    sources = locate.with_neighbours(FileSource(own, path), _Glimpsed(os.path.dirname(path)))
    try:
        for source in sources[1:]:
            watches.cover(source.path)
        return "there", tuple(file_identity(os.fstat(s.fileno())) for s in sources)
    finally:
        intake.close_sources(sources)


def _being_written(source: FileSource) -> bool:
    """Whether anybody has the file open for writing, as far as the kernel tells this user."""
    try:
        fcntl.fcntl(source.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(source.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _still_there(source: FileSource) -> bool:
    held = os.fstat(source.fileno())
    try:
        now = os.stat(source.path)
    except OSError:
        return False
    return (held.st_dev, held.st_ino) == (now.st_dev, now.st_ino)
