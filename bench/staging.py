"""How fast the daemon brings a checkpoint into sealed memory, against what reading, copying and hashing cost alone.

    python bench/staging.py [--mib 1024] [--tensors 64] [--rounds 6]

All ways take turns on the same file of `--mib` MiB. Warm: its pages are in the page cache. Cold: they were dropped
(posix_fadvise), which costs nobody else anything; on a virtual machine the host may still have them.

    mapcell, sealed          from the question to the lease: read, hashed, sealed
    mapcell, cast            the same from a bfloat16 file of half the size to float32
    mapcell, mapped          residence="mapped": nothing is copied
    mapcell, huge pages      into pages of 2 MiB, which the kernel makes first
    read                     readinto one buffer of 8 MiB, as dd does it: what the source can give
    copy to memfd, 1 thread  os.pwrite of a buffer that is there into a fresh memfd: a plain memcpy into the same memory
    copy to memfd, N threads the same with a thread for each core
    read and copy            both: what staging could take without hashing, one thread
    hash, N threads          blake3 of bytes that are there
    safetensors numpy        load_file: a private copy, not hashed
    decrypt                  an encrypted .ckpt of `--encrypted` MiB, decrypted in the worker

`bytes_read` is what the daemon's stager read, as the kernel counts it, for each byte of the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import MIB, Repetition, Row, compare, folder, machine, parser, private_daemon, row, run
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import NotFound
from mapcell_formats.messages import Unload
from models import Shape, noise, safetensors_file
from support.proc import eventually

_BUFFER = 8 * MIB
BURST = 2


def drop(path: Path) -> None:
    """Takes the file's pages out of the page cache."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path: Path) -> None:
    """Brings the file's pages into the page cache."""
    read(path)


def read(path: Path) -> int:
    """The whole file through one buffer."""
    buffer, total = bytearray(_BUFFER), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


class Prepared:
    """A repetition with what has to be done before each, outside of the time."""

    def __init__(self, repetition: Repetition, before: Callable[[], object]) -> None:
        self._repetition = repetition
        self.before = before

    def __call__(self) -> object:
        return self._repetition()


class Staged:
    """Has the daemon stage the file; what it staged is unloaded before the next time."""

    def __init__(self, path: Path, cache: Callable[[Path], None], residence: str, dtype: str | None) -> None:
        self._path = path
        self._cache = cache
        self._residence = residence
        self._dtype = dtype

    def before(self) -> None:
        """Unloads, and puts the page cache in order."""
        # What another way left, too: found there, nothing would be staged.
        with contextlib.suppress(NotFound):
            CONNECTIONS.client().ask(Unload("staged"), 10, repeat=False)
        eventually(lambda: not _status().sealed)
        self._cache(self._path)

    def __call__(self) -> None:
        """From the question to the lease."""
        attach_path(
            str(self._path), dtype=self._dtype, keys=None, prefix="", mode="r", timeout=600, name="staged",
            residence=self._residence,
        ).close()  # fmt: skip


def _status() -> Any:
    status = mapcell.daemon_status()
    assert status is not None
    return status


def to_memfd(block: memoryview, nbytes: int, threads: int) -> None:
    """Writes `nbytes` of copies of `block` into a fresh memfd."""
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, nbytes)
        places = range(0, nbytes, len(block))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda at: os.pwrite(fd, block[: nbytes - at], at), places))
    finally:
        os.close(fd)


def read_to_memfd(path: Path) -> None:
    """Reads the file and writes it into a fresh memfd, with one buffer."""
    buffer, at = memoryview(bytearray(_BUFFER)), 0
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                at += os.pwrite(fd, buffer[:count], at)
    finally:
        os.close(fd)


def hashed(block: memoryview, nbytes: int, threads: int) -> list[bytes]:
    """blake3 of so many bytes, a block at a time."""
    from blake3 import blake3

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda at: blake3(block[: nbytes - at]).digest(), range(0, nbytes, len(block))))


def loader(path: Path) -> Repetition:
    """safetensors' own copy."""
    from safetensors.numpy import load_file

    return lambda: load_file(path)


def limits(path: Path, shape: Shape, cache: Callable[[Path], None]) -> dict[str, Callable[[], Repetition]]:
    """What each part costs without mapcell."""
    nbytes, cores = shape.nbytes, machine().cores
    block = next(noise(min(nbytes, _BUFFER)))
    ways: dict[str, Callable[[], Repetition]] = {
        "read": lambda: Prepared(partial(read, path), partial(cache, path)),
        "read and copy": lambda: Prepared(partial(read_to_memfd, path), partial(cache, path)),
        "safetensors numpy": lambda: Prepared(loader(path), partial(cache, path)),
    }
    if cache is warm:
        for threads in sorted({1, cores}):
            name = f"{threads} thread{'s' * (threads > 1)}"
            ways[f"copy to memfd, {name}"] = lambda threads=threads: partial(to_memfd, block, nbytes, threads)  # type: ignore[misc]
            ways[f"hash, {name}"] = lambda threads=threads: partial(hashed, block, nbytes, threads)  # type: ignore[misc]
    return ways


def encrypted(place: Path, options: argparse.Namespace) -> list[Row]:
    """Decryption in the worker, against the same checkpoint in the clear."""
    key = b"0123456789abcdef"
    net = {f"t{i}": np.ones((options.encrypted * MIB // 16 // 4,), np.float32) for i in range(16)}
    tensors = [{"name": name, "data": mapcell.Tensor(array)} for name, array in net.items()]
    clear, secret = str(place / "clear.ckpt"), str(place / "secret.ckpt")

    def decrypting() -> Repetition:
        mapcell.save_checkpoint(tensors, secret, enc_key=key, enc_mode="AES-GCM")
        return lambda: mapcell.load_checkpoint(secret, dec_key=key, dec_mode="AES-GCM")

    def reading() -> Repetition:
        mapcell.save_checkpoint(tensors, clear)
        return lambda: mapcell.load_checkpoint(clear)

    ways = {"decrypt": decrypting, "same file in the clear": reading}
    case = {"cache": "warm", "mib": options.encrypted, "what": "decrypt"}
    return compare(case, ways, options.rounds, options.only, limit=options.limit)


def measure(options: argparse.Namespace) -> list[Row]:
    """Warm, then cold; then what a key costs."""
    rows: list[Row] = []
    shape = Shape(options.tensors, options.mib * MIB)
    half = Shape(options.tensors, options.mib * MIB // 2, 2)
    with folder(options.folder) as place:
        path = safetensors_file(place / "model.safetensors", shape, filled=True)
        small = safetensors_file(place / "half.safetensors", half, filled=True, dtype="BF16")
        # A virtual machine gets memory from its host when it is first written, which takes far longer than to write it.
        to_memfd(next(noise(_BUFFER)), 3 * shape.nbytes, 1)
        with private_daemon():
            for name, cache in (("warm", warm), ("cold", drop)):
                case: dict[str, object] = {
                    "what": "stage",
                    "cache": name,
                    "mib": options.mib,
                    "tensors": options.tensors,
                }
                ways: dict[str, Callable[[], Repetition]] = {
                    "mapcell, sealed": partial(Staged, path, cache, "sealed", None),
                    "mapcell, cast": partial(Staged, small, cache, "sealed", "F32"),
                    "mapcell, mapped": partial(Staged, path, cache, "mapped", None),
                }
                rows += compare(
                    case,
                    ways | limits(path, shape, cache),
                    options.rounds,
                    options.only,
                    burst=BURST,
                    limit=options.limit,
                )
            rows += bytes_read(path, case, options)
            rows += encrypted(place, options)
        rows += huge_pages(place, path, options)
    return rows


def bytes_read(path: Path, case: Mapping[str, object], options: argparse.Namespace) -> list[Row]:
    """How much one staging reads."""
    if options.only is not None and "mapcell, sealed" not in options.only:
        return []
    staged = Staged(path, warm, "sealed", None)
    staged.before()
    before = _status().bytes_read
    staged()
    read = _status().bytes_read - before
    staged.before()
    return [row({**case, "cache": "warm", "what": "bytes"}, "mapcell, sealed", ratio=read / path.stat().st_size)]


def huge_pages(place: Path, path: Path, options: argparse.Namespace) -> list[Row]:
    """Into huge pages."""
    way, case = (
        "mapcell, huge pages",
        {"what": "stage", "cache": "warm", "mib": options.mib, "tensors": options.tensors},
    )
    if options.only is not None and way not in options.only:
        return []
    config = place / "huge.toml"
    config.write_text('huge_pages = "try"\n')
    with private_daemon("--config", str(config)):
        return compare(case, {way: partial(Staged, path, warm, "sealed", None)}, options.rounds, limit=options.limit)


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--tensors", type=int, default=64)
    arguments.add_argument("--encrypted", type=int, default=64, help="MiB of the encrypted checkpoint")
    arguments.add_argument("--rounds", type=int, default=6)
    arguments.add_argument("--limit", type=float, default=8.0, help="seconds after which a way sits out in a case")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
