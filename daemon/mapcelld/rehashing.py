"""Hashes a version's bytes where they lie: once in the background for files that are mapped in place, and again where
something has to prove that they are still the same. Runs in stagers only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Sequence

from mapcell_formats.checkpoint import Extent, SourceTensor
from mapcell_formats.digest import content_digest, file_identity, without_ctime
from mapcell_formats.errors import StagingFailed
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.messages import Hashed, Job, Progress
from mapcell_formats.source import FileSource, read
from mapcelld import channel, filling, intake, memfd
from mapcelld.jobs import JobChannel

_LOWEST = 19
# ioprio_set(2), which Python has no call for: the class "idle" for this process.
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_REPORT_BYTES = 64 << 20


def rehash(jobs: JobChannel, job: Job, fds: list[int]) -> None:
    """Hashes the version whose manifest is fds[0] and whose segments the others are, and says what it found.

    StagingFailed when its files were touched meanwhile: nothing is known then, and it can be tried again.
    """
    _give_way()
    with FileSource(fds[0], "manifest") as held:
        manifest = Manifest(bytes(read(held, 0, held.size)))
    sources = [FileSource(fd, job.base) for fd in fds[1:]]
    try:
        about, entries = manifest.description(), manifest.entries()
        before = _identities(sources)
        fault = _fault(job, sources)
        if not fault:
            digests = _digests(jobs, sources, manifest, entries)
            if before != _identities(sources):
                raise StagingFailed(f"{job.base} was touched while it was hashed; it is hashed again")
            known = [manifest.digest(i) for i in range(len(manifest))]
            fault = "" if not about.verified or known == digests else "its bytes are not what they were"
        if fault:
            _say(jobs, about, manifest, entries, None, fault)
        else:
            _say(jobs, about, manifest, entries, digests, "")
    finally:
        intake.close_sources(sources)


def demand_unchanged(about: Description, manifest: Manifest, sources: Sequence[FileSource], job: Job) -> None:
    """StagingFailed when what is mapped in place cannot be shown to be what its version stands for.

    chmod, rename and link change no byte, but neither size nor mtime proves that nothing else did: only the digests do,
    if there are any by now.
    """
    if about.residence != "mapped" or all(map(_sealed, sources)) or _identities(sources) == list(job.identities):
        return
    if fault := _fault(job, sources):
        raise StagingFailed(f"{about.version}: {fault}; load it again")
    if not about.verified:
        raise StagingFailed(
            f"the files of {about.version} were touched since they were mapped (a chmod, rename or link is enough) and "
            "their bytes are not hashed yet; ask again when `mapcell show` says verified, or load it again"
        )
    entries = manifest.entries()
    if _digests(None, sources, manifest, entries) != [manifest.digest(i) for i in range(len(manifest))]:
        raise StagingFailed(f"the bytes of {about.version} are not what they were when it was hashed; load it again")


def source_tensors(manifest: Manifest) -> tuple[SourceTensor, ...]:
    """The tensors of a version, as they lie in its segments."""
    return tuple(
        SourceTensor(e.name, e.dtype, e.shape, (Extent(e.segment, e.offset, e.nbytes),)) for e in manifest.entries()
    )


def _digests(
    jobs: JobChannel | None, sources: Sequence[FileSource], manifest: Manifest, entries: Sequence[TensorEntry]
) -> list[bytes]:
    total = sum(e.nbytes for e in entries)

    def report(done: int) -> None:
        if jobs is not None:
            jobs.tell(Progress("hashing", done, total))

    counter = filling.Counter(report, _REPORT_BYTES)
    return filling.fill(lambda offset, data: None, sources, source_tensors(manifest), entries, counter)


def _say(
    jobs: JobChannel,
    about: Description,
    manifest: Manifest,
    entries: Sequence[TensorEntry],
    digests: Sequence[bytes] | None,
    fault: str,
) -> None:
    digest = "" if digests is None else content_digest(zip(entries, digests, strict=True), about.metadata)
    if about.verified == (digests is not None):
        jobs.tell(Hashed(digest, 0, fault))
        return
    told = Description(
        about.version, about.residence, about.format, digests is not None, about.metadata, about.identity
    )
    data = encode_manifest(told, manifest.segments, entries, digests)
    with channel.owned([memfd.sealed_copy("mapcell-manifest", data)]) as fds:
        jobs.tell(Hashed(digest, len(data), fault), fds)


def _fault(job: Job, sources: Sequence[FileSource]) -> str:
    """Why the files are not what was mapped, as far as size and mtime tell; "" when they are."""
    for source, then in zip(sources, job.identities, strict=True):
        now = file_identity(os.fstat(source.fileno()))
        if not _sealed(source) and without_ctime(now) != without_ctime(then):
            return "its files were changed since they were mapped"
    return ""


def _sealed(source: FileSource) -> bool:
    """Whether the bytes lie in memory that nobody can change: what was a file has been copied there."""
    return memfd.is_sealed(source.fileno(), source.size)


def _identities(sources: Sequence[FileSource]) -> list[str]:
    return [file_identity(os.fstat(s.fileno())) for s in sources]


def _give_way() -> None:
    """Runs only when nobody else wants the processor or the disk: nobody waits for this."""
    # Each is a wish: a sandbox that refuses one still has the others.
    with contextlib.suppress(OSError):
        os.nice(_LOWEST)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _SYS_IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
