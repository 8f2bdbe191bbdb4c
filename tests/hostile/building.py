"""Builds checkpoint bytes by hand, right and wrong ones, without the writers under test."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from mapcell_formats.errors import StagingFailed

PATH = "/models/case"


class MemorySource:
    """A ByteSource over bytes that also knows how many of them were read."""

    def __init__(self, data: bytes, path: str = PATH, size: int | None = None) -> None:
        self.data = data
        self.path = path
        self.size = len(data) if size is None else size
        self.bytes_read = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer`; StagingFailed beyond the end, zeros in what `size` claims beyond `data`."""
        if offset + len(buffer) > self.size:
            raise StagingFailed(f"{self.path}: ended at byte {self.size}")
        piece = self.data[offset : offset + len(buffer)]
        buffer[:] = piece + bytes(len(buffer) - len(piece))
        self.bytes_read += len(buffer)


@dataclass(frozen=True, slots=True)
class Case:
    """Broken bytes, and a word that the error about them has to contain."""

    label: str
    data: bytes
    says: str
    size: int | None = None

    def source(self) -> MemorySource:
        """The bytes as a source; `size` lets a file be larger than the memory it takes here."""
        return MemorySource(self.data, size=self.size)


def safetensors_file(header: bytes | dict[str, object], body: bytes = b"", length: int | None = None) -> bytes:
    """A file of `header`, as text or as what JSON is made of; `length` overrides what the file claims for it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(begin: object = 0, end: object = 4, shape: object = (1,), dtype: object = "F32") -> dict[str, object]:
    """One tensor's entry in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def varint(value: int, width: int = 1) -> bytes:
    """`value` as a protobuf varint of at least `width` bytes."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < width:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, payload: bytes | int) -> bytes:
    """One protobuf field: a varint for an int, else length-delimited."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def tensor(dims: tuple[int, ...] = (1,), type_name: str = "Float32", content: bytes = bytes(4)) -> bytes:
    """One TensorProto."""
    return b"".join(field(1, dim) for dim in dims) + field(2, type_name.encode()) + field(3, content)


def record(name: str | bytes, proto: bytes | None = None) -> bytes:
    """One record of a .ckpt."""
    tag = name.encode() if isinstance(name, str) else name
    return field(1, field(1, tag) + field(2, tensor() if proto is None else proto))


def npy_file(header: str | bytes, body: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    """A .npy of `header`; `length` overrides what it claims for it."""
    text = header if isinstance(header, bytes) else header.encode()
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(width, "little") + text + body


def deflated(data: bytes) -> bytes:
    """`data` as a raw deflate stream, as zip has it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
