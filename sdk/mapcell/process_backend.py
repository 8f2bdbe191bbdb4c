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

from mapcell_formats.detect import read_checkpoint
from mapcell_formats.digest import file_identity, provisional_id
from mapcell_formats.dtypes import ITEMSIZE, numpy_dtype
from mapcell_formats.gguf_dequantise import dequantised
from mapcell_formats.manifest import Description, TensorEntry
from mapcell_formats.source import ByteSource, FileSource

from .contents import ReadContents
from .mapping import Array, Mode, SegmentMap, map_segment, view
from .opening import open_sources
from .weights import Weights, select


class ProcessBacking:
    """Maps of a checkpoint's files in this process, and copies of the tensors that need one.

    `sources` are what the contents' tensors lie in. Owns `files`, which these read, until `close`.
    """

    backend: Literal["process"] = "process"

    def __init__(
        self, contents: ReadContents, sources: Sequence[ByteSource], files: Sequence[FileSource], mode: Mode
    ) -> None:
        # Not the checkpoint's own sources alone: one that decrypts or inflates has a file behind it.
        self._files = tuple(files)
        self._contents = contents
        self._sources = sources
        self._mode: Mode = mode
        self._copies: dict[str, Array] = {}
        self._lock = Lock()
        self._maps = [_map_source(s, mode) for s in sources]

    def array(self, entry: TensorEntry) -> Array:
        """A view of the file where that is possible, else the one copy that this object keeps."""
        if self._lies_ready(entry):
            return view(self._maps[entry.segment], entry, self._mode)
        with self._lock:
            copy = self._copies.get(entry.name)
            if copy is None:
                copy = self._copies[entry.name] = self._copy(entry)
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

    def _lies_ready(self, entry: TensorEntry) -> bool:
        return self._contents.lies_whole(entry) and (
            entry.nbytes == 0 or (self._maps[entry.segment] is not None and entry.offset % ITEMSIZE[entry.dtype] == 0)
        )

    def _copy(self, entry: TensorEntry) -> Array:
        tensor = self._contents.tensor(entry)
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
        about = Description(provisional_id(identities), "mapped", checkpoint.format, False, checkpoint.metadata)
        contents = ReadContents(about, checkpoint.tensors, dtype)
        selected = select(contents, keys, prefix)
        backing = ProcessBacking(contents, checkpoint.sources, sources, mode)
    except BaseException:
        for source in sources:
            source.close()
        raise
    return Weights(contents, backing, name=Path(path).name, source=path, selected=selected)
