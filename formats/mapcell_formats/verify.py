"""Reads every byte of a checkpoint: digests, and whether its numbers are numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .digest import PREFIX, content_digest
from .dtypes import FLOATING, numpy_dtype
from .layout import plan
from .manifest import TensorEntry
from .mindspore_ckpt import READER as MINDSPORE
from .mindspore_ckpt import verify_crc
from .pieces import PIECE_BYTES, pieces
from .source import ByteSource

SHA256_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor: `digest` is "blake3:" and the hex digits of its bytes' hash; counts are None unless asked for."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str
    nans: int | None = None
    infs: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What reading every byte brought: `version` is the content digest, a sealed version's id in the daemon."""

    version: str
    nbytes: int
    tensors: tuple[TensorReport, ...]


def examine(checkpoint: Checkpoint, *, nans: bool = False) -> Report:
    """Reads all of `checkpoint`; with `nans` counts NaNs and infinities in floating and complex tensors.

    FormatError when a .ckpt differs from its own checksum, StagingFailed when a source cannot be read to its end.
    """
    if checkpoint.format == MINDSPORE.format:
        for source in checkpoint.sources:
            verify_crc(source)
    buffer = bytearray(PIECE_BYTES)
    entries = plan(checkpoint.tensors).entries
    parts = (
        (entry, pieces(checkpoint.sources, tensor, buffer))
        for entry, tensor in zip(entries, checkpoint.tensors, strict=True)
    )
    return examine_parts(parts, checkpoint.metadata, nans=nans)


def examine_parts(
    parts: Iterable[tuple[TensorEntry, Iterable[memoryview]]], metadata: Mapping[str, str], *, nans: bool = False
) -> Report:
    """The report on tensors whose bytes come in pieces of whole elements, and on a checkpoint's strings."""
    reports: list[TensorReport] = []
    digests: list[tuple[TensorEntry, bytes]] = []
    for entry, data in parts:
        digest, bad = _examine(entry.dtype, data, nans)
        digests.append((entry, digest))
        counts = bad if nans else (None, None)
        reports.append(TensorReport(entry.name, entry.dtype, entry.shape, entry.nbytes, PREFIX + digest.hex(), *counts))
    return Report(content_digest(digests, metadata), sum(report.nbytes for report in reports), tuple(reports))


def cut(view: memoryview) -> Iterator[memoryview]:
    """`view` in pieces as `examine_parts` wants them, for bytes that are in memory already."""
    # Every item size divides the size of a piece.
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def sha256(source: ByteSource) -> str:
    """The hex digits of the SHA-256 of a file, as Hugging Face publishes it. StagingFailed as `ByteSource`."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE_BYTES))
    for offset in range(0, source.size, PIECE_BYTES):
        piece = buffer[: source.size - offset]
        source.read_into(offset, piece)
        hasher.update(piece)
    return hasher.hexdigest()


def _examine(dtype: str, data: Iterable[memoryview], nans: bool) -> tuple[bytes, tuple[int, int]]:
    from blake3 import blake3

    hasher = blake3()
    counts = (0, 0)
    for piece in data:
        hasher.update(piece)
        if nans and (dtype in FLOATING or dtype == "C64"):
            more = _not_finite(piece, dtype)
            counts = counts[0] + more[0], counts[1] + more[1]
    return hasher.digest(), counts


def _not_finite(piece: memoryview, dtype: str) -> tuple[int, int]:
    """How many NaNs and infinities are in `piece`."""
    import numpy as np

    array = np.frombuffer(piece, numpy_dtype(dtype))
    if dtype not in ("F32", "F64", "C64"):
        # The types of ml_dtypes have no such functions of their own, and F16 is slower as it is.
        with np.errstate(invalid="ignore"):
            array = array.astype(np.float32)
    finite = np.isfinite(array)
    if finite.all():
        return 0, 0
    return int(np.isnan(array).sum()), int(np.isinf(array).sum())
