"""One stager: the disposable process that touches foreign bytes, from descriptor to published segments.

It is forked for one job, talks to the daemon over a socket pair, and dies. Whatever a file or a descriptor does to it,
the daemon only sees its channel end. The sequence (ARCHITECTURE.md draws it):

    daemon: Job -> stager: Identified -> daemon: Proceed -> stager: Sized -> daemon: Proceed -> stager: Progress...,
    Staged (with descriptors) or Refused
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from mapcell_formats import messages, wire
from mapcell_formats.checkpoint import Checkpoint, Extent, SourceTensor
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.digest import content_digest, file_identity, provisional_id
from mapcell_formats.errors import MapcellError, NotFound, StagingFailed, UnsupportedFormat
from mapcell_formats.layout import Layout, plan
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.messages import Identified, Job, Proceed, Progress, Refused, Selection, Sized, Staged
from mapcell_formats.source import FileSource, read
from mapcelld import channel, filling, intake, memfd

# Often enough for a progress bar, seldom enough to cost nothing: at most this many reports for one checkpoint.
_REPORTS = 200
_JOB_DESCRIPTORS = messages.MAX_DESCRIPTORS


def run(sock: socket.socket) -> None:
    """Does the one job that comes on `sock`, and says how it ended."""
    try:
        _do(sock)
    except MapcellError as exc:
        _tell(sock, Refused.of(exc))
    except MemoryError:
        _tell(sock, Refused.of(StagingFailed("the stager ran out of memory")))
    # The boundary of a disposable process: a bug met by one file must become that file's error, not a silent death.
    except Exception as exc:
        _tell(sock, Refused.of(StagingFailed(f"the stager failed: {type(exc).__name__}: {exc}")))


def _do(sock: socket.socket) -> None:
    payload, fds = channel.receive(sock, messages.MAX_CONTROL_BYTES, _JOB_DESCRIPTORS)
    _, job = wire.decode(payload, messages.STAGER_ORDERS)
    if not isinstance(job, Job):
        channel.close_all(fds)
        raise StagingFailed(f"the stager was told {job} before its job")
    if job.kind == "derive":
        _derive(sock, job, fds)
    else:
        _stage_files(sock, job, fds)


def _stage_files(sock: socket.socket, job: Job, fds: list[int]) -> None:
    sources = _open(job, fds)
    try:
        identities = tuple(file_identity(os.fstat(s.fileno())) for s in sources)
        _tell(sock, Identified(os.getpid(), identities))
        _await_proceed(sock)
        checkpoint = choose(read_checkpoint(sources), job.selection)

        def settled() -> None:
            if identities != tuple(file_identity(os.fstat(s.fileno())) for s in sources):
                raise StagingFailed(f"{job.paths[0]} changed while it was being read; ask again")

        if may_map(checkpoint, sources, job):
            _publish_mapped(sock, checkpoint, sources, settled)
        else:
            _publish_sealed(sock, checkpoint, job.selection.dtype or None, settled)
    finally:
        intake.close_sources(sources)


def _open(job: Job, fds: list[int]) -> list[FileSource]:
    if job.kind == "configured":
        return intake.open_configured(job.paths, job.roots)
    with socket.socket(fileno=fds[0]) as connection:
        # The connection is shared with the daemon, which never blocks on it: here waiting for a slow client is fine.
        return intake.receive_offer(connection, job.paths)


def _derive(sock: socket.socket, job: Job, fds: list[int]) -> None:
    with FileSource(fds[0], "manifest") as held:
        manifest = Manifest(bytes(read(held, 0, held.size)))
    sources = [FileSource(fd, job.base) for fd in fds[1:]]
    try:
        _tell(sock, Identified(os.getpid(), (job.base,)))
        _await_proceed(sock)
        about = manifest.description()
        tensors = tuple(
            SourceTensor(e.name, e.dtype, e.shape, (Extent(e.segment, e.offset, e.nbytes),)) for e in manifest.entries()
        )
        checkpoint = Checkpoint(about.format, tensors, tuple(sources), about.metadata)
        identities = [file_identity(os.fstat(s.fileno())) for s in sources]

        def settled() -> None:
            if identities != [file_identity(os.fstat(s.fileno())) for s in sources]:
                raise StagingFailed(f"{job.base} changed while it was being read; ask again")

        _publish_sealed(sock, choose(checkpoint, job.selection), job.selection.dtype or None, settled)
    finally:
        intake.close_sources(sources)


def choose(checkpoint: Checkpoint, selection: Selection) -> Checkpoint:
    """`checkpoint` with only the tensors that `selection` names. NotFound when a key is not there."""
    if selection.keys is None and not selection.prefix:
        return checkpoint
    wanted = None if selection.keys is None else set(selection.keys)
    if wanted is not None and (missing := wanted - {t.name for t in checkpoint.tensors}):
        raise NotFound(f"no tensor {min(missing)!r} in {checkpoint.sources[0].path}", tensor=min(missing))
    tensors = tuple(
        t for t in checkpoint.tensors if t.name.startswith(selection.prefix) and (wanted is None or t.name in wanted)
    )
    return Checkpoint(checkpoint.format, tensors, checkpoint.sources, checkpoint.metadata)


def may_map(checkpoint: Checkpoint, sources: Sequence[FileSource], job: Job) -> bool:
    """Whether the files are lent as they lie. UnsupportedFormat when that was demanded and cannot be."""
    if job.residence == "sealed":
        return False
    plain = not job.selection.dtype and job.selection.keys is None and not job.selection.prefix
    possible = plain and checkpoint.mappable() and all(map(_reopens, sources))
    if job.residence == "mapped" and not possible:
        raise UnsupportedFormat(
            "cannot be mapped as it lies; its tensors are unaligned or in pieces, a cast or a part was asked for, or "
            "the daemon may not open it",
            path=sources[0].path,
            expected="residence 'auto' or 'sealed'",
        )
    return possible and (job.residence == "mapped" or all(map(_unchanging, sources)))


def _reopens(source: FileSource) -> bool:
    try:
        os.close(os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _unchanging(source: FileSource) -> bool:
    """Whether only root and this daemon's own user could change the file or swap it in its folder."""
    trusted = {0, os.geteuid()}
    info = os.fstat(source.fileno())
    if info.st_uid not in trusted or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    try:
        folders = Path(os.readlink(f"/proc/self/fd/{source.fileno()}")).parents
        return all(_guarded(folder.stat(), trusted) for folder in folders)
    except OSError:
        return False


def _guarded(folder: os.stat_result, trusted: set[int]) -> bool:
    sticky = folder.st_mode & stat.S_ISVTX
    return folder.st_uid in trusted and (bool(sticky) or not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _publish_mapped(
    sock: socket.socket, checkpoint: Checkpoint, sources: Sequence[FileSource], settled: Callable[[], None]
) -> None:
    _tell(sock, Sized("mapped", 0, len(checkpoint.tensors)))
    _await_proceed(sock)
    entries = [
        TensorEntry(
            t.name,
            t.dtype,
            t.shape,
            t.extents[0].source if t.extents else 0,
            t.extents[0].offset if t.extents else 0,
            t.nbytes,
        )
        for t in checkpoint.tensors
    ]
    identities = [file_identity(os.fstat(s.fileno())) for s in sources]
    about = Description(provisional_id(identities), "mapped", checkpoint.format, False, checkpoint.metadata)
    sizes = [s.size for s in sources]
    data = encode_manifest(about, sizes, entries)
    settled()
    _hand_over(sock, about, entries, data, sizes, [s.fileno() for s in sources])


def _publish_sealed(
    sock: socket.socket, checkpoint: Checkpoint, dtype: str | None, settled: Callable[[], None]
) -> None:
    layout = plan(checkpoint.tensors, dtype)
    _tell(sock, Sized("sealed", layout.nbytes, len(layout.entries)))
    _await_proceed(sock)
    fd = memfd.create("mapcell-segment", layout.nbytes)
    with channel.owned([fd]):
        digests = _fill(sock, fd, checkpoint, layout)
        settled()
        memfd.seal(fd)
        version = content_digest(zip(layout.entries, digests, strict=True), checkpoint.metadata)
        about = Description(version, "sealed", checkpoint.format, True, checkpoint.metadata)
        data = encode_manifest(about, [layout.nbytes], layout.entries, digests)
        _hand_over(sock, about, layout.entries, data, [layout.nbytes], [fd])


def _fill(sock: socket.socket, fd: int, checkpoint: Checkpoint, layout: Layout) -> list[bytes]:
    total = checkpoint.nbytes
    counter = filling.Counter(
        report=lambda done: _tell(sock, Progress("staging", done, total)), step=max(total // _REPORTS, 1 << 20)
    )
    return filling.fill(fd, checkpoint.sources, checkpoint.tensors, layout.entries, counter)


def _hand_over(
    sock: socket.socket,
    about: Description,
    entries: Sequence[TensorEntry],
    manifest: bytes,
    sizes: Sequence[int],
    segments: Sequence[int],
) -> None:
    dtypes = {e.dtype for e in entries}
    staged = Staged(
        version=about.version,
        residence=about.residence,
        format=about.format,
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
        verified=about.verified,
        tensors=len(entries),
        manifest=len(manifest),
        segments=tuple(sizes),
        read=_bytes_read(),
    )
    with channel.owned([memfd.sealed_copy("mapcell-manifest", manifest)]) as (held,):
        channel.send(sock, wire.encode(staged), [held, *segments])


def _bytes_read() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0


def _await_proceed(sock: socket.socket) -> None:
    payload, fds = channel.receive(sock, messages.MAX_HANDLE_BYTES, 1)
    channel.close_all(fds)
    if not payload:
        # The daemon closed the channel: nobody wants this job any more.
        raise SystemExit(0)
    _, order = wire.decode(payload, messages.STAGER_ORDERS)
    if not isinstance(order, Proceed):
        raise StagingFailed(f"the stager was told {order} instead of to proceed")


def _tell(sock: socket.socket, report: object) -> None:
    try:
        channel.send(sock, wire.encode(report))
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(0) from None
