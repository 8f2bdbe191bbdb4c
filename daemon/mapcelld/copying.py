"""A rescue's copy: all bytes of one guarded file into sealed memory of the same length, while a writer waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mapcell_formats.messages import Copied, Progress
from mapcell_formats.source import FileSource
from mapcelld import channel, filling, memfd
from mapcelld.jobs import JobChannel

# Small enough for a core's cache, so that what was read is written from there.
_PIECE = 1 << 20
# For whoever watches: often enough for a bar.
_REPORTS = 20


def copy_sealed(jobs: JobChannel, source: FileSource) -> None:
    """Copies `source` and hands the sealed copy over. StagingFailed when memory or the file ends early."""
    fd = memfd.create("mapcell-segment", source.size)
    with channel.owned([fd]):
        _fill(jobs, source, fd)
        memfd.seal(fd)
        jobs.tell(Copied(source.size), [fd])


def _fill(jobs: JobChannel, source: FileSource, fd: int) -> None:
    counter = filling.Counter(
        report=lambda done: jobs.tell(Progress("rescuing", done, source.size)),
        step=max(source.size // _REPORTS, 16 * _PIECE),
    )
    workers = filling.threads()

    def work(start: int) -> None:
        buffer = memoryview(bytearray(_PIECE))
        for offset in range(start * _PIECE, source.size, workers * _PIECE):
            piece = buffer[: source.size - offset]
            source.read_into(offset, piece)
            memfd.write(fd, offset, piece)
            counter.add(len(piece))

    if source.size <= _PIECE:
        work(0)
        return
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, start) for start in range(workers)]:
            done.result()
