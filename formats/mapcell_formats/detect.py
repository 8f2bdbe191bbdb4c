"""Finds out by content what a checkpoint is, and reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from . import encrypted_ckpt, gguf, mindspore_ckpt, npy, npz, safetensors, torch_zip, zip_archive
from .checkpoint import Checkpoint, Reader, SourceTensor
from .errors import FormatError, UnsupportedFormat
from .index import is_index, parse_index
from .limits import HEAD_BYTES
from .source import ByteSource, read


class _ZipReader:
    """Reads whatever has zip archives for files, told apart by what is in them."""

    format = "zip"

    def accepts(self, head: bytes, size: int) -> bool:
        return head.startswith(zip_archive.MAGIC)

    def parse(self, source: ByteSource) -> Checkpoint:
        archive = zip_archive.read_archive(source)
        for reader in ARCHIVES:
            if reader.holds(archive):
                return reader.parse_archive(archive)
        names = ", ".join(name[:40] for name in islice(archive.members, 3)) or "nothing"
        message = f"is a zip archive that holds {names}"
        raise UnsupportedFormat(message, path=source.path, offset=0, expected="arrays (.npz) or a torch checkpoint")


ARCHIVES: tuple[zip_archive.ArchiveReader, ...] = (torch_zip.READER, npz.READER)
READERS: tuple[Reader, ...] = (safetensors.READER, mindspore_ckpt.READER, gguf.READER, npy.READER, _ZipReader())

_CONVERT = "convert it to safetensors with the library that wrote it"
# A pickle of protocol 2 that holds torch's old magic number.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_SAVE_AGAIN = "save it again with a newer one: torch.save(torch.load(path, weights_only=True), other)"
# What other files begin with, what they are, and what their owner can do.
_KNOWN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x05\x06", "an empty zip archive", "save the checkpoint again"),
    (b"FUGG", "a big-endian GGUF model", _CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, .h5)", _CONVERT),
    (b"\x1f\x8b", "gzip", "unpack it first"),
    (b"(\xb5/\xfd", "zstandard", "unpack it first"),
    (b"\xfd7zXZ\x00", "xz", "unpack it first"),
    (b"BZh", "bzip2", "unpack it first"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "fetch the file with `git lfs pull`"),
    (_LEGACY_TORCH, "a torch checkpoint from before torch 1.6", _SAVE_AGAIN),
    (b"\x80\x02", "a Python pickle, perhaps an old torch checkpoint", _CONVERT + "; mapcell executes no pickle"),
    (b"\x80\x03", "a Python pickle", _CONVERT + "; mapcell executes no pickle"),
    (b"\x80\x04", "a Python pickle", _CONVERT + "; mapcell executes no pickle"),
    (b"\x80\x05", "a Python pickle", _CONVERT + "; mapcell executes no pickle"),
    (b"\x7fELF", "a program", "name the checkpoint instead"),
    (b"<!DOCTYPE", "a web page, probably a download's error page", "download the file again"),
    (b"<html", "a web page, probably a download's error page", "download the file again"),
)
_EXPECTED = "safetensors, MindSpore .ckpt, GGUF, .npy, .npz or a torch file"


def read_checkpoint(sources: Sequence[ByteSource], *, key: bytes | None = None, mode: str = "AES-GCM") -> Checkpoint:
    """The checkpoint in `sources`: one file, or the shards of one in their order, after their index if they have one.

    FormatError when the bytes are broken; UnsupportedFormat, with what the file looks like and what to do, when it is
    none that mapcell reads. `key` and `mode` ("AES-GCM", "AES-CBC", "SM4-CBC") decrypt a MindSpore .ckpt.
    """
    if not sources:
        raise FormatError("no file to read", expected=_EXPECTED)
    if not _opens_an_index(sources[0]):
        return _join([_read_one(source, key, mode) for source in sources])
    index = parse_index(sources[0])
    if len(sources) - 1 != len(index.files):
        message = f"names {len(index.files)} files, of which {len(sources) - 1} came with it"
        raise FormatError(message, path=sources[0].path, offset=0, expected="the index and all of its files")
    parts = [_read_one(source, key, mode) for source in sources[1:]]
    index.check(parts)
    return _join([Checkpoint(parts[0].format, (), (sources[0],)), *parts])


def _opens_an_index(source: ByteSource) -> bool:
    head = bytes(read(source, 0, min(HEAD_BYTES, source.size)))
    return is_index(head) and not any(reader.accepts(head, source.size) for reader in READERS)


def _read_one(source: ByteSource, key: bytes | None, mode: str) -> Checkpoint:
    head = bytes(read(source, 0, min(HEAD_BYTES, source.size)))
    if encrypted := encrypted_ckpt.mode_of(head):
        return mindspore_ckpt.READER.parse(_decrypted(source, encrypted, key, mode))
    for reader in READERS:
        if reader.accepts(head, source.size):
            if key is not None:
                raise FormatError("is not encrypted, yet dec_key is given", path=source.path, expected="no key")
            return reader.parse(source)
    what, advice = _looks_like(head)
    raise UnsupportedFormat(f"{what}; {advice}", path=source.path, offset=0, expected=_EXPECTED)


def _decrypted(source: ByteSource, encrypted: str, key: bytes | None, mode: str) -> ByteSource:
    if key is None:
        message = f"is encrypted with {encrypted}"
        raise FormatError(message, path=source.path, offset=0, expected=f"dec_key and dec_mode={encrypted!r}")
    encrypted_ckpt.check_key(key, mode, source.path)
    if mode != encrypted:
        message = f"is encrypted with {encrypted}, not {mode}"
        raise FormatError(message, path=source.path, offset=0, expected=f"dec_mode={encrypted!r}")
    plain = encrypted_ckpt.DecryptedSource(source, key, mode)
    head = bytes(read(plain, 0, min(HEAD_BYTES, plain.size)))
    # A wrong key passes for CBC's padding once in 256 times.
    if not mindspore_ckpt.READER.accepts(head, plain.size):
        message = f"decrypts with {mode}, but to no checkpoint"
        raise FormatError(message, path=source.path, offset=0, expected="the key that it was encrypted with")
    return plain


def _looks_like(head: bytes) -> tuple[str, str]:
    if not head:
        return "is empty", "save or download it again"
    for magic, what, advice in _KNOWN:
        if head.startswith(magic):
            return f"looks like {what}", advice
    if not any(head):
        return "begins with zeros only", "the download or copy did not finish: repeat it"
    if _is_text(head):
        return "looks like text", "name the checkpoint instead"
    return f"is of no known format (it begins with {head[:8].hex(' ')})", "check the path"


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    # A full head may end within a character, of which it then has up to 3 bytes.
    cut = 3 if len(head) == HEAD_BYTES else 0
    return len(text.encode()) >= len(head) - cut and all(char.isprintable() or char in "\t\r\n" for char in text)


def _join(parts: Sequence[Checkpoint]) -> Checkpoint:
    """The parts as one checkpoint; FormatError when they share a name, or are not of one format."""
    if len(parts) == 1:
        return parts[0]
    tensors: dict[str, SourceTensor] = {}
    metadata: dict[str, str] = {}
    sources: list[ByteSource] = []
    for part in parts:
        if part.format != parts[0].format:
            expected = f"{parts[0].format}, as the files before it are"
            raise FormatError(f"is a {part.format} file", path=part.sources[0].path, offset=0, expected=expected)
        for tensor in _renumbered(part.tensors, len(sources)):
            if tensor.name in tensors:
                path = part.sources[0].path
                raise FormatError("also in an earlier shard", path=path, tensor=tensor.name, expected="it in one shard")
            tensors[tensor.name] = tensor
        metadata = {**part.metadata, **metadata}
        sources += part.sources
    return Checkpoint(parts[0].format, tuple(tensors.values()), tuple(sources), metadata)


def _renumbered(tensors: Iterable[SourceTensor], first: int) -> Iterable[SourceTensor]:
    for tensor in tensors:
        extents = tuple(extent._replace(source=first + extent.source) for extent in tensor.extents)
        yield tensor._replace(extents=extents)
