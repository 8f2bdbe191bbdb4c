"""Zip archives that attackers or broken disks send; every member would be an array of an .npz."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .building import Case, deflated, npy_file
from .zip_building import FULL, End, Part, zip_file

ARRAY = npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(8))
SMALL = zip_file([Part("x.npy", ARRAY), Part("y.npy", deflated(ARRAY), len(ARRAY), crc=zlib.crc32(ARRAY), method=8)])


def cases() -> Iterator[Case]:
    """Every broken archive, with what its error has to say."""
    yield from _ends()
    yield from _entries()
    yield from _members()
    yield from _names()
    yield from _arrays()


def truncations() -> Iterator[Case]:
    """A sound archive, cut at every byte."""
    for size in range(len(SMALL)):
        yield Case(f"cut at {size}", SMALL[:size], "")


def _ends() -> Iterator[Case]:
    part = [Part("x.npy", ARRAY)]
    sound = zip_file(part)
    yield Case("nothing but an end", zip_file([]), "")
    yield Case("no end", sound[:-22], "without its end")
    yield Case("bytes after the end", sound + b"x", "without its end")
    yield Case("comment longer than the file", zip_file(part, End(comment_length=9)), "without its end")
    yield Case(
        "comment shorter than there is", zip_file(part, End(comment=b"abc", comment_length=2)), "without its end"
    )
    yield Case("ends without end", b"PK\x03\x04" + b"PK\x05\x06" * 20_000, "without its end")
    yield Case("an end in the comment", zip_file(part, End(comment=zip_file([])[:-1] + b"x")), "without its end")
    ends = {
        "one member more": End(count=2),
        "one member less": End(count=0),
        "65,535 members": End(count=0xFFFF),
        "directory shorter": End(nbytes=1),
        "directory of 2^31": End(nbytes=1 << 31),
        "directory of 2^32 - 1": End(nbytes=FULL),
        "directory at 2^31": End(start=1 << 31),
        "directory at 0": End(start=0),
        "directory at 2^32 - 1": End(start=FULL),
        "a second disk": End(disk=1),
        "bytes before the end": End(between=b"x"),
    }
    for label, end in ends.items():
        yield Case(label, zip_file(part, end), "")
    wide = {
        "at 0": End(wide=True, wide_at=0),
        "at 2^63": End(wide=True, wide_at=1 << 63),
        "at -1": End(wide=True, wide_at=(1 << 64) - 1),
        "of other members": End(wide=True, wide_count=2),
        "of 2^63 members": End(wide=True, wide_count=1 << 63, count=0xFFFF),
        "of 1,000,101 members": End(wide=True, wide_count=1_000_101, count=0xFFFF),
    }
    for label, end in wide.items():
        yield Case(f"zip64 end {label}", zip_file(part, end), "")
    yield Case("bytes before the first member", zip_file(part, before=b"PK\x03\x04 self-extracting"), "begins at")


def _entries() -> Iterator[Case]:
    wrong = {
        "broken magic": Part("x.npy", ARRAY, magic=b"PK\x01\x03"),
        "at 2^31": Part("x.npy", ARRAY, at=1 << 31),
        "at the end": Part("x.npy", ARRAY, at=len(zip_file([Part("x.npy", ARRAY)])) - 22),
        "one byte late": Part("x.npy", ARRAY, at=1),
        "zip64 without sizes": Part("x.npy", ARRAY, size=FULL),
        "zip64 cut": Part("x.npy", ARRAY, size=FULL, packed=FULL, extra=struct.pack("<HHQ", 1, 8, 1)),
        "zip64 beyond the entry": Part("x.npy", ARRAY, size=FULL, extra=struct.pack("<HHQ", 1, 24, 1)),
        "zip64 behind a lie": Part("x.npy", ARRAY, size=FULL, extra=struct.pack("<HH", 7, 0xFFFF)),
        "size 2^63": Part("x.npy", ARRAY, size=FULL, extra=struct.pack("<HHQ", 1, 8, 1 << 63)),
        "packed and size 2^63": Part(
            "x.npy", ARRAY, size=FULL, packed=FULL, extra=struct.pack("<HHQQ", 1, 16, 1 << 63, 1 << 63)
        ),
        "offset 2^63": Part("x.npy", ARRAY, at=FULL, extra=struct.pack("<HHQ", 1, 8, 1 << 63)),
        "offset -1": Part("x.npy", ARRAY, at=FULL, extra=struct.pack("<HHQ", 1, 8, (1 << 64) - 1)),
        "stored in fewer bytes": Part("x.npy", ARRAY, size=1 << 20),
        "more packed bytes than there are": Part("x.npy", ARRAY, packed=1 << 30),
        "bytes of the directory": Part("x.npy", ARRAY, packed=len(ARRAY) + 1),
        "encrypted": Part("x.npy", ARRAY, flags=1),
        "strongly encrypted": Part("x.npy", ARRAY, flags=0x41),
        "a patch": Part("x.npy", ARRAY, flags=0x20),
        "a masked directory": Part("x.npy", ARRAY, flags=0x2000),
        "encrypted in its header": Part("x.npy", ARRAY, local_flags=1),
        "deflated in its header": Part("x.npy", ARRAY, local_method=8),
        "another name in its header": Part("x.npy", ARRAY, local_name=b"y.npy"),
        "a longer name in its header": Part("x.npy", ARRAY, local_name=b"x.npy.exe"),
        "header's extra over the end": Part("x.npy", ARRAY, local_extra=b"", local_name=b"x.npy", method=0, packed=999),
        **{f"method {method}": Part("x.npy", ARRAY, method=method) for method in (1, 6, 9, 12, 14, 93, 95, 99, 0xFFFF)},
    }
    for label, part in wrong.items():
        yield Case(f"entry: {label}", zip_file([part]), "")
    first, second = Part("x.npy", ARRAY), Part("y.npy", ARRAY)
    size = len(first.local())
    yield Case("two entries, one member", zip_file([first, Part("y.npy", at=0, local_name=b"x.npy")]), "")
    inside = Part("x.npy", ARRAY + second.local())
    yield Case("a member inside another", zip_file([inside, Part("y.npy", ARRAY, at=size)]), "begins at")
    quoted = [Part(f"{i}.npy", b"\x01" * 50, 50, method=8, at=0, local_name=b"0.npy") for i in range(1000)]
    yield Case("a thousand entries, one member", zip_file(quoted), "")


def _members() -> Iterator[Case]:
    packed = deflated(ARRAY)
    size = len(ARRAY)

    def member(data: bytes, size: int, crc: int = zlib.crc32(ARRAY)) -> bytes:
        return zip_file([Part("x.npy", data, size, crc=crc, method=8)])

    yield Case("inflates to more", member(packed, size - 1), "inflates to more than")
    yield Case("inflates to less", member(packed, size + 1), "inflates to")
    yield Case("another checksum", member(packed, size, 1), "CRC-32")
    yield Case("cut stream", member(packed[:-9], size), "ends after")
    yield Case("no stream", member(b"\xff" * 100, size), "no deflated data")
    yield Case("empty stream", member(b"", size), "at most 0")
    bomb = deflated(ARRAY[:-8] + bytes(10 << 20))
    yield Case("bomb of 10 MiB", member(bomb, (10 << 20) + size - 8), "bytes follow the header")
    yield Case("bomb that lies", member(bomb, 1 << 31), "at most")
    yield Case(
        "bomb in the header", member(deflated(b"\x93NUMPY\x02\0\0\0\0\x01" + b" " * (1 << 24)), 12 + (1 << 24)), ""
    )
    yield Case("endless empty blocks", member(b"\0\0\0\xff\xff" * 20_000, size), "ends after")


def _names() -> Iterator[Case]:
    for name in ("/x.npy", "../x.npy", "a/../../x.npy", "..\\x.npy", "a\\..\\..\\x.npy", "\0x.npy", "x.npy\0.txt", ""):
        yield Case(f"name {name!r}", zip_file([Part(name, ARRAY)]), "")
    yield Case("name no UTF-8", zip_file([Part(b"\xff.npy", ARRAY, flags=0x800)]), "UTF-8")
    yield Case("name of 5000 bytes", zip_file([Part("n" * 5000 + ".npy", ARRAY)]), "5004 bytes")
    yield Case("name twice", zip_file([Part("x.npy", ARRAY), Part("x.npy", ARRAY)]), "two members are called")
    yield Case("name twice in two codes", zip_file([Part("x.npy", ARRAY), Part("x.npy", ARRAY, flags=0x800)]), "two")
    yield Case("only a folder", zip_file([Part("x/")]), "")
    yield Case("no array", zip_file([Part("x.npy", ARRAY), Part("README", b"hello")]), "is no array")


def _arrays() -> Iterator[Case]:
    yield Case("empty member", zip_file([Part("x.npy")]), "is no .npy")
    yield Case("array cut", zip_file([Part("x.npy", ARRAY[:-1])]), "7 bytes follow")
    yield Case("bytes after the array", zip_file([Part("x.npy", ARRAY + b"x")]), "9 bytes follow")
    fortran = npy_file("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", bytes(16))
    data = zip_file([Part("x.npy", deflated(fortran), len(fortran), crc=zlib.crc32(fortran), method=8)])
    yield Case("Fortran order, deflated", data, "Fortran order")
