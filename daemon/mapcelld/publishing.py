"""The end of a stager's work: files lent as they lie, or their bytes copied, hashed and sealed; then handed over."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.digest import content_digest, file_identity, provisional_id
from mapcell_formats.errors import StagingFailed, UnsupportedFormat
from mapcell_formats.layout import Layout, common_dtype, plan
from mapcell_formats.manifest import Description, TensorEntry, encode_manifest
from mapcell_formats.messages import Job, Manner, Progress, Sized, Staged
from mapcell_formats.source import FileSource
from mapcelld import channel, filling, gathering, guard, memfd
from mapcelld.jobs import JobChannel

# Often enough for a progress bar, seldom enough to cost nothing: at most this many reports for one checkpoint.
_REPORTS = 200
_HASH_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Residence:
    """Where the bytes are to lie. `unguarded` says why the files are not, or could not be, guarded."""

    mapped: bool
    unguarded: str = ""


def residence(checkpoint: Checkpoint, sources: Sequence[FileSource], job: Job) -> Residence:
    """Whether the files are lent as they lie. UnsupportedFormat when that was demanded and cannot be."""
    if job.residence == "sealed":
        return Residence(False)
    plain = not job.selection.dtype and job.selection.keys is None and not job.selection.prefix
    possible = plain and checkpoint.mappable() and all(map(_reopens, sources))
    if job.residence == "mapped" and not possible:
        raise UnsupportedFormat(
            "cannot be mapped as it lies; its tensors are unaligned or in pieces, a cast or a part was asked for, or "
            "the daemon may not open it",
            path=sources[0].path,
            expected="residence 'auto' or 'sealed'",
        )
    if not possible:
        return Residence(False)
    unguarded = _obstacle(sources, job)
    return Residence(job.residence == "mapped" or not unguarded, unguarded)


def _reopens(source: FileSource) -> bool:
    try:
        os.close(os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _obstacle(sources: Sequence[FileSource], job: Job) -> str:
    """Why these files cannot be guarded, "" when they can."""
    nbytes, most = sum(s.size for s in sources), guard.largest(job.manner.deadline)
    if nbytes > most:
        return (
            f"a writer would wait too long for the copy of {nbytes} bytes; at most {most} are guarded (raise "
            "guard_deadline)"
        )
    for source in sources:
        # A guard makes writers wait: nobody gets one on files that are neither theirs nor the operator's choice.
        if job.kind != "configured" and os.fstat(source.fileno()).st_uid != job.uid:
            return "it is neither configured nor the asker's own file"
        if reason := guard.refusal(source.fileno()):
            return reason
    return ""


def publish_mapped(
    jobs: JobChannel,
    checkpoint: Checkpoint,
    sources: Sequence[FileSource],
    manner: Manner,
    settled: Callable[[], None],
    unguarded: str,
) -> None:
    """Lends the files as they lie. `settled` raises when they changed meanwhile."""
    jobs.tell(Sized("mapped", 0, len(checkpoint.tensors)))
    jobs.await_proceed()
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
    _check_file_digest(sources, manner.digest)
    identity = provisional_id(file_identity(os.fstat(s.fileno())) for s in sources)
    version, digests = identity, None
    if manner.digest or manner.warm:
        # Hashing reads every page, which is all that warming is.
        digests = filling.fill(
            lambda offset, data: None, checkpoint.sources, checkpoint.tensors, entries, _counter(jobs, checkpoint)
        )
        version = content_digest(zip(entries, digests, strict=True), checkpoint.metadata)
    about = Description(version, "mapped", checkpoint.format, digests is not None, checkpoint.metadata, identity)
    sizes = [s.size for s in sources]
    data = encode_manifest(about, sizes, entries, digests)
    settled()
    _hand_over(jobs, about, entries, data, sizes, [s.fileno() for s in sources], unguarded)


def publish_sealed(
    jobs: JobChannel,
    checkpoint: Checkpoint,
    dtype: str | None,
    manner: Manner,
    settled: Callable[[], None],
    unguarded: str = "",
) -> None:
    """Copies the tensors into new memory, floating ones as `dtype`, and seals it. `settled` as above."""
    layout = plan(checkpoint.tensors, dtype)
    jobs.tell(Sized("sealed", _footprint(layout.nbytes, manner.huge_pages), len(layout.entries)))
    jobs.await_proceed()
    files = [s for s in checkpoint.sources if isinstance(s, FileSource)]
    _check_file_digest(files, manner.digest)
    fd, nbytes, digests = _filled(jobs, checkpoint, layout, manner)
    with channel.owned([fd]):
        settled()
        memfd.seal(fd)
        if manner.drop_cache:
            for source in files:
                os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        version = content_digest(zip(layout.entries, digests, strict=True), checkpoint.metadata)
        about = Description(version, "sealed", checkpoint.format, True, checkpoint.metadata)
        data = encode_manifest(about, [nbytes], layout.entries, digests)
        _hand_over(jobs, about, layout.entries, data, [nbytes], [fd], unguarded)


def _filled(jobs: JobChannel, checkpoint: Checkpoint, layout: Layout, manner: Manner) -> tuple[int, int, list[bytes]]:
    """A filled memfd (the caller's), its size, and the blake3 of each tensor."""
    huge = _huge(layout.nbytes, manner.huge_pages)
    counter = _counter(jobs, checkpoint)
    if huge is not None:
        with closing(huge):
            digests = filling.fill(huge.write, checkpoint.sources, checkpoint.tensors, layout.entries, counter)
            return huge.finish(), huge.nbytes, digests
    fd = memfd.create("mapcell-segment", layout.nbytes)
    try:
        if manner.huge_pages == "try":
            gathering.gather(fd, layout.nbytes)
        digests = filling.fill(
            lambda offset, data: memfd.write(fd, offset, data),
            checkpoint.sources,
            checkpoint.tensors,
            layout.entries,
            counter,
        )
    except BaseException:
        os.close(fd)
        raise
    return fd, layout.nbytes, digests


def _footprint(nbytes: int, huge_pages: str) -> int:
    """What `nbytes` occupy at most: huge pages are used whole."""
    return nbytes if huge_pages == "off" else -(-nbytes // memfd.HUGE_PAGE) * memfd.HUGE_PAGE


def _huge(nbytes: int, choice: str) -> memfd.HugeMemory | None:
    if choice == "off" or nbytes == 0:
        return None
    try:
        return memfd.HugeMemory("mapcell-segment", nbytes)
    except StagingFailed:
        if choice == "on":
            raise
        return None


def _check_file_digest(sources: Sequence[FileSource], wanted: str) -> None:
    """StagingFailed when a single file's sha256 was demanded and is another."""
    if not wanted.startswith("sha256:"):
        return
    if len(sources) != 1:
        raise StagingFailed(f"a sha256 is one file's, and this checkpoint has {len(sources)}; give its blake3 digest")
    hasher, buffer = hashlib.sha256(), bytearray(_HASH_PIECE)
    for offset in range(0, sources[0].size, _HASH_PIECE):
        piece = memoryview(buffer)[: sources[0].size - offset]
        sources[0].read_into(offset, piece)
        hasher.update(piece)
    if (found := f"sha256:{hasher.hexdigest()}") != wanted:
        raise StagingFailed(f"{sources[0].path} is {found}, but its digest has to be {wanted}")


def _counter(jobs: JobChannel, checkpoint: Checkpoint) -> filling.Counter:
    total = checkpoint.nbytes
    return filling.Counter(
        report=lambda done: jobs.tell(Progress("staging", done, total)), step=max(total // _REPORTS, 1 << 20)
    )


def _hand_over(
    jobs: JobChannel,
    about: Description,
    entries: Sequence[TensorEntry],
    manifest: bytes,
    sizes: Sequence[int],
    segments: Sequence[int],
    unguarded: str,
) -> None:
    staged = Staged(
        version=about.version,
        residence=about.residence,
        format=about.format,
        dtype=common_dtype({e.dtype for e in entries}),
        verified=about.verified,
        tensors=len(entries),
        manifest=len(manifest),
        segments=tuple(sizes),
        read=_bytes_read(),
        unguarded=unguarded,
    )
    with channel.owned([memfd.sealed_copy("mapcell-manifest", manifest)]) as (held,):
        jobs.tell(staged, [held, *segments])


def _bytes_read() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0
