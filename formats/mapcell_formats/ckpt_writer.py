"""Writes MindSpore's .ckpt, plain or encrypted; `mindspore_ckpt` and `encrypted_ckpt` have the byte layout.

Two things differ from a file that MindSpore writes, and it reads both: every tensor's bytes are aligned in the file,
by an unknown field of zeros in front of them, so that the file can be mapped as it lies; and tensors without elements
are written rather than dropped. With `align=1` the bytes are those of MindSpore.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .encrypted_ckpt import (
    BLOCK_BYTES,
    CIPHER_BLOCK,
    IV_BYTES,
    MAGIC_OF,
    NONCE_BYTES,
    check_key,
    cipher,
)
from .errors import FormatError, UnsupportedFormat
from .items import DEFAULT_ALIGN, Item, StringItem, TensorItem, check_align, checked
from .mindspore_ckpt import DTYPES, MAX_DIM, MAX_STRING_BYTES, SLICE_BYTES, STRING_TYPE, TRAILER_MAGIC
from .protobuf import BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer


TYPE_NAMES: Mapping[str, str] = {code: name for name, code in DTYPES.items() if name != "Int4"}
# No version of checkpoint.proto has it, and protobuf readers skip what they do not know.
PADDING_FIELD = 15
# The padding's length always takes 4 bytes: of minimal ones, some sums of tag, length and zeros do not exist.
_PADDING_OVERHEAD = 5


@dataclass(frozen=True, slots=True)
class Encryption:
    """`key` as bytes and a mode of `encrypted_ckpt.KEY_BYTES`. FormatError when they do not fit each other."""

    key: bytes
    mode: str = "AES-GCM"

    def __post_init__(self) -> None:
        check_key(self.key, self.mode)


def encode_ckpt(
    items: Iterable[Item],
    *,
    align: int = DEFAULT_ALIGN,
    crc: bool = False,
    encryption: Encryption | None = None,
    slice_bytes: int = SLICE_BYTES,
) -> Iterator[Buffer]:
    """The file as chunks in order. Tensors' bytes are passed on as views of what was given, never copied.

    A tensor of more than `slice_bytes` becomes several records, which cannot be mapped as one array. Nothing holds
    more than one plain and one encrypted block. FormatError or UnsupportedFormat (a dtype that .ckpt lacks) name the
    tensor; ValueError for `crc` together with `encryption`, a file that MindSpore could not read back.
    """
    check_align(align)
    if crc and encryption:
        raise ValueError("crc and encryption exclude each other: AES-GCM already proves the contents")
    chunks = _records(items, align, slice_bytes)
    if encryption:
        return _encrypted(chunks, encryption)
    return _with_trailer(chunks) if crc else chunks


def _records(items: Iterable[Item], align: int, slice_bytes: int) -> Iterator[Buffer]:
    position = 0
    for item in checked(items):
        pieces = _string(item) if isinstance(item, StringItem) else _tensor(item, slice_bytes)
        for fields, content in pieces:
            width = align if isinstance(item, TensorItem) else 1
            head = _aligned_head(item.name.encode(), fields, len(content), position, width)
            yield head
            yield content
            position += len(head) + len(content)


def _tensor(item: TensorItem, slice_bytes: int) -> Iterator[tuple[bytes, memoryview]]:
    """Each record's dims and type as bytes, and its content."""
    if item.dtype not in TYPE_NAMES:
        message, known = f"a .ckpt cannot hold {item.dtype}", ", ".join(TYPE_NAMES)
        raise UnsupportedFormat(message, tensor=item.name, expected=f"one of {known}, or safetensors")
    if max(item.shape, default=0) > MAX_DIM:
        raise UnsupportedFormat(f"shape {list(item.shape)}", tensor=item.name, expected=f"dims up to {MAX_DIM}")
    dims = b"".join(b"\x08" + varint(dim) for dim in item.shape)
    fields = dims + _field(2, TYPE_NAMES[item.dtype].encode())
    view = item.view()
    for start in range(0, max(len(view), 1), slice_bytes):
        yield fields, view[start : start + slice_bytes]


def _string(item: StringItem) -> Iterator[tuple[bytes, memoryview]]:
    # NumPy has no strings of no characters: MindSpore writes the empty one as one NUL.
    try:
        content = (item.text or "\0").encode("utf-32-le")
    except UnicodeEncodeError as exc:
        raise FormatError("half a surrogate pair in the string", tensor=item.name, expected="text") from exc
    if len(content) > MAX_STRING_BYTES:
        expected = f"at most {MAX_STRING_BYTES // 4} characters"
        raise FormatError(f"a string of {len(item.text)} characters", tensor=item.name, expected=expected)
    yield b"\x08\x00" + _field(2, STRING_TYPE.encode()), memoryview(content)


def _aligned_head(name: bytes, fields: bytes, nbytes: int, position: int, align: int) -> bytes:
    """The record at `position` up to its content, which falls on a multiple of `align`."""
    padding = 0
    while True:
        head = _head(name, fields + _padding(padding), nbytes)
        missing = -(position + len(head)) % align
        if not missing:
            return head
        # More padding may lengthen the lengths around it, so that it has to be weighed again; they grow only thrice.
        padding += missing
        while padding < _PADDING_OVERHEAD:
            padding += align


def _head(name: bytes, fields: bytes, nbytes: int) -> bytes:
    inner = fields + b"\x1a" + varint(nbytes)
    outer = _field(1, name) + b"\x12" + varint(len(inner) + nbytes) + inner
    return b"\n" + varint(len(outer) + nbytes) + outer


def _padding(nbytes: int) -> bytes:
    """A field of zeros that takes `nbytes` with its tag and length."""
    if not nbytes:
        return b""
    zeros = nbytes - _PADDING_OVERHEAD
    length = bytes([zeros & 0x7F | 0x80, zeros >> 7 & 0x7F | 0x80, zeros >> 14 & 0x7F | 0x80, zeros >> 21])
    return varint(PADDING_FIELD << 3 | BYTES) + length + bytes(zeros)


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """`value` from 0 up in protobuf's variable length, as short as it goes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _with_trailer(chunks: Iterable[Buffer]) -> Iterator[Buffer]:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        yield chunk
    yield TRAILER_MAGIC + crc.to_bytes(10, "big")


def _encrypted(chunks: Iterable[Buffer], encryption: Encryption) -> Iterator[Buffer]:
    block = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: BLOCK_BYTES - len(block)]
            block += taken
            rest = rest[len(taken) :]
            if len(block) == BLOCK_BYTES:
                yield from _block(block, encryption)
                block.clear()
    if block:
        yield from _block(block, encryption)


def _block(plain: bytearray, encryption: Encryption) -> Iterator[Buffer]:
    mode, iv = encryption.mode, os.urandom(IV_BYTES)
    gcm = mode == "AES-GCM"
    context = cipher(mode, encryption.key, iv[:NONCE_BYTES] if gcm else iv).encryptor()
    padding = 0 if gcm else CIPHER_BLOCK - len(plain) % CIPHER_BLOCK
    body = context.update(plain)
    rest = context.update(bytes([padding]) * padding) + context.finalize()
    tag = context.tag if gcm else b""
    nbytes = len(body) + len(rest)
    yield _u32(MAGIC_OF[mode]) + tag + _u32(8 + IV_BYTES + nbytes) + _u32(IV_BYTES) + iv + _u32(nbytes)
    yield body
    yield rest


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
