"""One stager: the disposable process that touches foreign bytes, from descriptor to published segments.

It is forked for one job, talks to the daemon over a socket pair, and dies. Whatever a file or a descriptor does to it,
the daemon only sees its channel end. The sequence (ARCHITECTURE.md draws it):

    daemon: Job -> stager: Identified -> daemon: Proceed -> stager: Sized -> daemon: Proceed -> stager: Progress...,
    Staged (with descriptors) or Refused
"""

from __future__ import annotations

import os
import socket

from mapcell_formats import messages, wire
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.digest import file_identity
from mapcell_formats.errors import MapcellError, NotFound, StagingFailed
from mapcell_formats.gguf_dequantise import dequantised
from mapcell_formats.manifest import Manifest
from mapcell_formats.messages import Identified, Job, Refused, Selection
from mapcell_formats.source import FileSource, read
from mapcelld import channel, copying, intake, looking, publishing, rehashing
from mapcelld.jobs import JobChannel

# The job, then at most a manifest and a version's segments.
_JOB_DESCRIPTORS = 2 + messages.MAX_DESCRIPTORS


def run(sock: socket.socket) -> None:
    """Does the one job that comes on `sock`, and says how it ended."""
    jobs = JobChannel(sock)
    try:
        _do(sock, jobs)
    except MapcellError as exc:
        jobs.tell(Refused.of(exc))
    except MemoryError:
        jobs.tell(Refused.of(StagingFailed("the stager ran out of memory")))
    # The boundary of a disposable process: a bug met by one file must become that file's error, not a silent death.
    except Exception as exc:
        jobs.tell(Refused.of(StagingFailed(f"the stager failed: {type(exc).__name__}: {exc}")))


def _do(sock: socket.socket, jobs: JobChannel) -> None:
    payload, fds = channel.receive(sock, len(messages.JOB_FOLLOWS), _JOB_DESCRIPTORS)
    if not payload:
        raise SystemExit(0)
    with FileSource(fds.pop(0), "job") as held:
        _, job = wire.decode(bytes(read(held, 0, held.size)), messages.STAGER_ORDERS)
    if not isinstance(job, Job):
        raise StagingFailed(f"the stager was told {job} before its job")
    if job.kind == "derive":
        _derive(jobs, job, fds)
    elif job.kind == "hash":
        rehashing.rehash(jobs, job, fds)
    elif job.kind in ("look", "look-claimed"):
        looking.look(jobs, job, fds)
    elif job.kind == "rescue":
        with FileSource(fds[0], "the guarded file") as source:
            copying.copy_sealed(jobs, source)
    else:
        _stage_files(jobs, job, fds)


def _stage_files(jobs: JobChannel, job: Job, fds: list[int]) -> None:
    sources = _open(job, fds)
    try:
        identities = tuple(file_identity(os.fstat(s.fileno())) for s in sources)
        jobs.tell(Identified(os.getpid(), identities))
        jobs.await_proceed()
        checkpoint = choose(read_checkpoint(sources), job.selection)

        def settled() -> None:
            if identities != tuple(file_identity(os.fstat(s.fileno())) for s in sources):
                raise StagingFailed(f"{job.paths[0]} changed while it was being read; ask again")

        chosen = publishing.residence(checkpoint, sources, job)
        if chosen.mapped:
            publishing.publish_mapped(jobs, checkpoint, sources, job.manner, settled, chosen.unguarded)
        else:
            dtype = job.selection.dtype or None
            publishing.publish_sealed(jobs, checkpoint, dtype, job.manner, settled, chosen.unguarded)
    finally:
        intake.close_sources(sources)


def _open(job: Job, fds: list[int]) -> list[FileSource]:
    if job.kind == "configured":
        return intake.open_configured(job.paths, job.roots)
    with socket.socket(fileno=fds[0]) as connection:
        # The connection is shared with the daemon, which never blocks on it: here waiting for a slow client is fine.
        return intake.receive_offer(connection, job.paths)


def _derive(jobs: JobChannel, job: Job, fds: list[int]) -> None:
    with FileSource(fds[0], "manifest") as held:
        manifest = Manifest(bytes(read(held, 0, held.size)))
    sources = [FileSource(fd, job.base) for fd in fds[1:]]
    try:
        jobs.tell(Identified(os.getpid(), (job.base,)))
        jobs.await_proceed()
        about = manifest.description()
        # Before their bytes are looked at, so that a change from there on shows in the end.
        identities = [file_identity(os.fstat(s.fileno())) for s in sources]
        if not job.sound:
            rehashing.demand_unchanged(about, manifest, sources, job)
        tensors = rehashing.source_tensors(manifest)
        checkpoint = Checkpoint(about.format, tensors, tuple(sources), about.metadata)

        def settled() -> None:
            if identities != [file_identity(os.fstat(s.fileno())) for s in sources]:
                raise StagingFailed(f"{job.base} changed while it was being read; ask again")

        chosen = choose(checkpoint, job.selection)
        publishing.publish_sealed(jobs, chosen, job.selection.dtype or None, job.manner, settled)
    finally:
        intake.close_sources(sources)


def choose(checkpoint: Checkpoint, selection: Selection) -> Checkpoint:
    """`checkpoint` with only the tensors that `selection` names, quantised ones as floats when it wants a dtype.

    NotFound when a key is not there.
    """
    part = _part(checkpoint, selection)
    return dequantised(part) if selection.dtype else part


def _part(checkpoint: Checkpoint, selection: Selection) -> Checkpoint:
    if selection.keys is None and not selection.prefix:
        return checkpoint
    wanted = None if selection.keys is None else {k for k in selection.keys if k.startswith(selection.prefix)}
    if wanted is not None and (missing := wanted - {t.name for t in checkpoint.tensors}):
        raise NotFound(f"no tensor {min(missing)!r} in {checkpoint.sources[0].path}", tensor=min(missing))
    tensors = tuple(
        t for t in checkpoint.tensors if t.name.startswith(selection.prefix) and (wanted is None or t.name in wanted)
    )
    return Checkpoint(checkpoint.format, tensors, checkpoint.sources, checkpoint.metadata)
