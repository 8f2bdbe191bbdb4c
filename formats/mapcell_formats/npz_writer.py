"""Writes .npz: a zip archive with one .npy for each tensor, stored, so that it can be mapped as it lies.

    file     = member..., a directory entry for each, [zip64 end record, its locator,] end record
    member   = local header of 30 bytes, name, extra, array.npy
    array    = "\\x93NUMPY", 1, 0, u16 length, a dict as text, blanks and a line feed; then the elements

What numpy.savez writes differs in one thing: the elements lie wherever the name's length puts them. Here an extra field
(0xD935, that of Android's zipalign: u16 alignment, then zeros) in front of each member moves its elements to a multiple
of `align`. Every zip reader skips extra fields, numpy.load included.

Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT and numpy.lib.format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dtypes import numpy_dtype
from .errors import FormatError, UnsupportedFormat
from .items import DEFAULT_ALIGN, Item, TensorItem, check_align, checked

if TYPE_CHECKING:
    from typing_extensions import Buffer

# An extra field holds less than 64 KiB.
MAX_NPZ_ALIGN = 1 << 14
# What only ml_dtypes has NumPy writes as raw bytes, and nobody can tell afterwards what they were.
NPZ_DTYPES = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64", "C64")

_NPY_ALIGN = 64
_PADDING_ID = 0xD935
_ZIP64_ID = 1
# What a field of 16 or 32 bits says when its value stands in a zip64 record, and the values that have to.
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_WIDE_COUNT, _WIDE = _U16, _U32
_UTF8_FLAG = 0x800
# 1980-01-01, the first day that zip has: the same tensors make the same file.
_DATE = 0x21
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")


@dataclass(frozen=True, slots=True)
class _Member:
    """What the directory has to say about a member that was written. Sizes and position in bytes."""

    name: bytes
    crc: int
    nbytes: int
    position: int


def encode_npz(items: Iterable[Item], *, align: int = DEFAULT_ALIGN) -> Iterator[Buffer]:
    """The file as chunks in order. Tensors' bytes are passed on as views of what was given, never copied.

    FormatError or UnsupportedFormat (a string, a dtype that NumPy itself lacks, more than MAX_NPZ_ALIGN) name the
    tensor at fault.
    """
    check_align(align)
    if align > MAX_NPZ_ALIGN:
        raise UnsupportedFormat(f"align={align} for an .npz", expected=f"at most {MAX_NPZ_ALIGN}")
    members: list[_Member] = []
    position = 0
    for item in checked(items):
        head, content = _array(item)
        crc = zlib.crc32(content, zlib.crc32(head))
        member = _Member(item.name.encode() + b".npy", crc, len(head) + len(content), position)
        if len(member.name) > _U16:
            raise FormatError(f"a name of {len(member.name)} bytes", tensor=item.name[:80], expected=f"at most {_U16}")
        local = _local(member, len(head), max(align, _NPY_ALIGN))
        members.append(member)
        yield local
        yield head
        yield content
        position += len(local) + member.nbytes
    yield from _directory(members, position)


def _array(item: Item) -> tuple[bytes, memoryview]:
    """An .npy up to its elements, and these."""
    if not isinstance(item, TensorItem):
        raise UnsupportedFormat("an .npz holds no strings", tensor=item.name, expected="tensors only")
    if item.dtype not in NPZ_DTYPES:
        message, known = f"an .npz cannot hold {item.dtype}", ", ".join(NPZ_DTYPES)
        raise UnsupportedFormat(message, tensor=item.name, expected=f"one of {known}, or safetensors")
    about = {"descr": numpy_dtype(item.dtype).str, "fortran_order": False, "shape": item.shape}
    text = repr(about).encode() + b"\n"
    text = text[:-1] + b" " * (-(10 + len(text)) % _NPY_ALIGN) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text, item.view()


def _local(member: _Member, head: int, align: int) -> bytes:
    """The local header, with an extra field that moves what follows `head` to a multiple of `align`."""
    wide = member.nbytes >= _WIDE
    extra = struct.pack("<HHQQ", _ZIP64_ID, 16, member.nbytes, member.nbytes) if wide else b""
    start = member.position + _LOCAL.size + len(member.name) + len(extra) + head
    if padding := -start % align:
        # Its own six bytes are the least that an extra field takes.
        while padding < 6:
            padding += align
        extra += struct.pack("<HHH", _PADDING_ID, padding - 4, align) + bytes(padding - 6)
    size = _narrow(member.nbytes)
    fixed = _LOCAL.pack(
        b"PK\x03\x04", _version(wide), _flags(member), 0, 0, _DATE, member.crc, size, size, len(member.name), len(extra)
    )
    return fixed + member.name + extra


def _directory(members: list[_Member], position: int) -> Iterator[bytes]:
    nbytes = 0
    for member in members:
        entry = _central(member)
        nbytes += len(entry)
        yield entry
    count = len(members)
    if count >= _WIDE_COUNT or position >= _WIDE or nbytes >= _WIDE:
        version = _version(True)
        yield _END64.pack(b"PK\x06\x06", 44, version, version, 0, 0, count, count, nbytes, position)
        yield _LOCATOR64.pack(b"PK\x06\x07", 0, position + nbytes, 1)
    few = count if count < _WIDE_COUNT else _U16
    yield _END.pack(b"PK\x05\x06", 0, 0, few, few, _narrow(nbytes), _narrow(position), 0)


def _central(member: _Member) -> bytes:
    wide = [value for value in (member.nbytes, member.nbytes, member.position) if value >= _WIDE]
    extra = struct.pack(f"<HH{len(wide)}Q", _ZIP64_ID, 8 * len(wide), *wide) if wide else b""
    version, size = _version(bool(wide)), _narrow(member.nbytes)
    fixed = _CENTRAL.pack(
        b"PK\x01\x02",
        version,
        version,
        _flags(member),
        0,
        0,
        _DATE,
        member.crc,
        size,
        size,
        len(member.name),
        len(extra),
        0,
        0,
        0,
        0,
        _narrow(member.position),
    )
    return fixed + member.name + extra


def _narrow(value: int) -> int:
    return value if value < _WIDE else _U32


def _version(zip64: bool) -> int:
    return 45 if zip64 else 20


def _flags(member: _Member) -> int:
    return 0 if member.name.isascii() else _UTF8_FLAG
