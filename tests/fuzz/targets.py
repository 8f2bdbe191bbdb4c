"""What is fuzzed: each format, where its search begins, and what may come out of reading any bytes at all."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

from hostile import corpus_ckpt, corpus_gguf, corpus_index, corpus_npy, corpus_safetensors, corpus_torch, corpus_zip
from hostile.building import MemorySource, entry, safetensors_file
from hostile.promises import check
from hostile.torch_building import PROLOGUE, pickled, torch_file, usual
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.ckpt_writer import Encryption, encode_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.encrypted_ckpt import KEY_BYTES, mode_of
from mapcell_formats.errors import FormatError, StagingFailed
from mapcell_formats.gguf_dequantise import dequantised
from mapcell_formats.items import StringItem, TensorItem
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.pickle_usual import FIRST_MEMO, MEMO_ITEMS
from mapcell_formats.source import read

KEY = bytes(16)
# A broken file of more says nothing that a small one does not, and costs the search its speed.
MAX_SEED_BYTES = 2048
# Of each of so many tensors, for sources that decode while they are read.
_READ_BYTES = 1 << 16
_READ_TENSORS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """One format: sound and broken files to begin with, and how bytes are read as one."""

    seeds: tuple[bytes, ...]
    parse: Callable[[bytes], Checkpoint]

    def run(self, data: bytes) -> None:
        """Reads `data`: returns whether it is sound or refused as it has to be. Whatever else happens is a finding."""
        try:
            checkpoint = self.parse(data)
        except FormatError:
            return
        check(checkpoint)
        for tensor in checkpoint.tensors[:_READ_TENSORS]:
            for extent in tensor.extents:
                source = checkpoint.sources[extent.source]
                try:
                    read(source, extent.offset, min(extent.nbytes, _READ_BYTES))
                except (FormatError, StagingFailed):
                    break


def _plain(data: bytes) -> Checkpoint:
    return read_checkpoint([MemorySource(data)])


def _gguf(data: bytes) -> Checkpoint:
    checkpoint = _plain(data)
    check(checkpoint)
    return dequantised(checkpoint)


def _encrypted(data: bytes) -> Checkpoint:
    return read_checkpoint([MemorySource(data)], key=KEY, mode=mode_of(data) or "AES-GCM")


def _index(data: bytes) -> Checkpoint:
    shards = [safetensors_file({name: entry()}, bytes(4)) for name in ("x", "y")]
    return read_checkpoint([MemorySource(raw) for raw in (data, *shards)])


def _pickle(data: bytes) -> Checkpoint:
    # Wrapped anew each time: in the archive its checksum would stop nearly every change before it is looked at.
    return _plain(torch_file(data))


def _manifest(data: bytes) -> Checkpoint:
    manifest = Manifest(data)
    list(map(manifest.find, ["x", "", *manifest.names()]))
    list(manifest.entries())
    manifest.description()
    return Checkpoint("manifest", (), ())


def _corpus(*modules: ModuleType) -> Iterable[bytes]:
    for module in modules:
        yield module.SMALL
        yield from (case.data for case in module.cases() if len(case.data) <= MAX_SEED_BYTES)


def _pickles() -> Iterable[bytes]:
    """The pickles in the corpus of torch's files."""
    for data in _corpus(corpus_torch):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        # Many of the archives are broken themselves.
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
            continue
    usuals = b"".join(usual(FIRST_MEMO + i * MEMO_ITEMS, b"0", b"K\x02\x85", b"K\x01\x85") for i in range(3))
    yield pickled(PROLOGUE + usuals + b"e")
    yield pickled(PROLOGUE + usual(FIRST_MEMO) + b"j" + (FIRST_MEMO + 5).to_bytes(4, "little") + b"e")


_ITEMS = (TensorItem("x", "F32", (2, 3), bytes(24)), StringItem("s", "text"), TensorItem("y", "I8", (0,), b""))


def _ckpt(**options: object) -> bytes:
    return b"".join(map(bytes, encode_ckpt(_ITEMS, **options)))  # type: ignore[arg-type]


def _manifest_seed() -> bytes:
    about = Description("blake3:" + "0" * 64, "sealed", "safetensors", True, {"a": "b"})
    entries = [TensorEntry("x", "F32", (2,), 0, 0, 8), TensorEntry("y", "U8", (), 0, 256, 1)]
    return encode_manifest(about, [4096], entries)


def _quantised() -> Iterable[bytes]:
    yield corpus_gguf.small(version=1)
    yield corpus_gguf.small(version=2)
    yield corpus_gguf.gguf_file((), (corpus_gguf.info("q", (64, 2), corpus_gguf.Q4_0),), bytes(72))


TARGETS: Mapping[str, Target] = {
    "safetensors": Target(tuple(_corpus(corpus_safetensors)), _plain),
    "ckpt": Target((*_corpus(corpus_ckpt), _ckpt(), _ckpt(crc=True), _ckpt(align=1, slice_bytes=8)), _plain),
    "encrypted": Target(tuple(_ckpt(encryption=Encryption(KEY, mode)) for mode in KEY_BYTES), _encrypted),
    "gguf": Target((*_corpus(corpus_gguf), *_quantised()), _gguf),
    "npy": Target(tuple(_corpus(corpus_npy)), _plain),
    "npz": Target(tuple(_corpus(corpus_zip)), _plain),
    "torch": Target(tuple(_corpus(corpus_torch)), _plain),
    "pickle": Target(tuple(_pickles()), _pickle),
    "index": Target(tuple(_corpus(corpus_index)), _index),
    "manifest": Target((_manifest_seed(),), _manifest),
}
