"""Weights without a daemon: this process opens the file itself, with the same readers.

Whatever lies aligned in the file is a view of a map of it. A tensor that cannot be used where it lies (unaligned, cut
in pieces, encrypted, or wanted in another dtype) is copied once, when it is first asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np

from mapcell_formats.checkpoint import Checkpoint, SourceTensor
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.digest import file_identity, provisional_id
from mapcell_formats.dtypes import ITEMSIZE, numpy_dtype
from mapcell_formats.gguf_dequantise import dequantised
from mapcell_formats.layout import cast_dtype
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.source import ByteSource, FileSource

from .mapping import Array, Mode, SegmentMap, map_segment, view
from .opening import open_sources
from .weights import Weights, select


class ProcessBacking:
    """Maps of a checkpoint's files in this process, and copies of the tensors that need one.

    Owns `files`, which the checkpoint's sources read, until `close`.
    """

    backend: Literal["process"] = "process"

    def __init__(self, checkpoint: Checkpoint, files: Sequence[FileSource], dtype: str | None, mode: Mode) -> None:
        # Not the checkpoint's own sources alone: one that decrypts or inflates has a file behind it.
        self._files = tuple(files)
        self._tensors = {t.name: t for t in checkpoint.tensors}
        self._sources = checkpoint.sources
        self._dtype = dtype
        self._mode: Mode = mode
        self._copies: dict[str, Array] = {}
        self._lock = Lock()
        self._maps = [_map_source(s, mode) for s in checkpoint.sources]

    def array(self, entry: TensorEntry) -> Array:
        """A view of the file where that is possible, else the one copy that this object keeps."""
        tensor = self._tensors[entry.name]
        if self._lies_ready(tensor, entry):
            return view(self._maps[entry.segment], entry, self._mode)
        with self._lock:
            copy = self._copies.get(entry.name)
            if copy is None:
                copy = self._copies[entry.name] = self._copy(tensor, entry)
        return copy

    def newer(self) -> None:
        """A file has no newer version: attach it again."""

    def close(self) -> None:
        """Closes the files and drops the copies; views keep their own map."""
        self._close_files()
        self._maps.clear()
        self._copies.clear()

    def __del__(self) -> None:
        # A bound network holds the weights, and nobody closes a network.
        self._close_files()

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    def _lies_ready(self, tensor: SourceTensor, entry: TensorEntry) -> bool:
        return tensor.dtype == entry.dtype and (
            entry.nbytes == 0
            or (
                len(tensor.extents) == 1
                and self._maps[entry.segment] is not None
                and entry.offset % ITEMSIZE[entry.dtype] == 0
            )
        )

    def _copy(self, tensor: SourceTensor, entry: TensorEntry) -> Array:
        array = np.empty(tensor.shape, numpy_dtype(tensor.dtype))
        target, done = array.reshape(-1).view(np.uint8).data, 0
        for extent in tensor.extents:
            self._sources[extent.source].read_into(extent.offset, target[done : done + extent.nbytes])
            done += extent.nbytes
        if entry.dtype != tensor.dtype:
            array = array.astype(numpy_dtype(entry.dtype))
        array.flags.writeable = self._mode == "c"
        return array


def _map_source(source: ByteSource, mode: Mode) -> SegmentMap | None:
    return map_segment(source.fileno(), source.size, mode, None) if isinstance(source, FileSource) else None


def _entry(tensor: SourceTensor, dtype: str | None) -> TensorEntry:
    first = tensor.extents[0] if tensor.extents else None
    target = cast_dtype(tensor.dtype, dtype)
    nbytes = tensor.nbytes // ITEMSIZE[tensor.dtype] * ITEMSIZE[target]
    return TensorEntry(
        tensor.name, target, tensor.shape, first.source if first else 0, first.offset if first else 0, nbytes
    )


def attach_in_process(
    path: str,
    *,
    dtype: str | None,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    decryption: tuple[bytes, str] | None = None,
) -> Weights:
    """Weights over the file at `path`, read and mapped by this process. Errors as `mapcell.attach`."""
    sources = open_sources(path)
    try:
        identities = [file_identity(os.fstat(s.fileno())) for s in sources]
        key, cipher = decryption or (None, "AES-GCM")
        checkpoint = read_checkpoint(sources, key=key, mode=cipher)
        if dtype:
            checkpoint = dequantised(checkpoint)
        entries = [_entry(t, dtype) for t in checkpoint.tensors]
        about = Description(provisional_id(identities), "mapped", checkpoint.format, False, checkpoint.metadata)
        manifest = Manifest(encode_manifest(about, [s.size for s in checkpoint.sources], entries))
        selected = select(manifest, keys, prefix)
        backing = ProcessBacking(checkpoint, sources, dtype, mode)
    except BaseException:
        for source in sources:
            source.close()
        raise
    return Weights(manifest, backing, name=Path(path).name, source=path, selected=selected)
