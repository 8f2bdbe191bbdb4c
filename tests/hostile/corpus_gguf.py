"""GGUF files that attackers or broken disks send, and the few lines that build them without a library."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .building import Case

U8, U32, F32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9
Q4_0 = 2


def count(value: int, version: int = 3) -> bytes:
    """A count or a dim."""
    return value.to_bytes(4 if version == 1 else 8, "little")


def u32(value: int) -> bytes:
    """A u32."""
    return struct.pack("<I", value)


def string(text: str | bytes, version: int = 3, length: int | None = None) -> bytes:
    """A string; `length` overrides what it claims."""
    raw = text.encode() if isinstance(text, str) else text
    return count(len(raw) if length is None else length, version) + raw


def array(kind: int, items: bytes, length: int, version: int = 3) -> bytes:
    """An array's value of `length` items that were encoded before."""
    return u32(kind) + count(length, version) + items


def pair(key: str | bytes, kind: int, value: bytes, version: int = 3) -> bytes:
    """One key and its value."""
    return string(key, version) + u32(kind) + value


def info(
    name: str | bytes = "x", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, version: int = 3
) -> bytes:
    """One tensor info; `dims` as GGUF orders them, the first the fastest."""
    shape = b"".join(count(dim, version) for dim in dims)
    return string(name, version) + u32(len(dims)) + shape + u32(kind) + struct.pack("<Q", offset)


def gguf_file(
    pairs: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    body: bytes = b"",
    version: int = 3,
    counts: tuple[int | None, int | None] = (None, None),
    alignment: int = 32,
) -> bytes:
    """A file; `counts` override the numbers of tensors and pairs that it announces."""
    tensors, keys = (len(own) if given is None else given for given, own in zip(counts, (infos, pairs), strict=True))
    head = b"GGUF" + u32(version) + count(tensors, version) + count(keys, version) + b"".join((*pairs, *infos))
    return head + bytes(-len(head) % alignment if infos else 0) + body


def small(version: int = 3) -> bytes:
    """A sound file with a pair of each kind of value, and one tensor of two by four weights."""
    nested = array(ARRAY, array(U8, b"\1\2", 2, version) + array(STRING, string("a", version), 1, version), 2, version)
    pairs = (
        pair("general.architecture", STRING, string("llama", version), version),
        pair("a.flag", BOOL, b"\1", version),
        pair("an.array", ARRAY, nested, version),
    )
    return gguf_file(pairs, (info(dims=(4, 2), version=version),), bytes(32), version)


SMALL = small()


def cases() -> Iterator[Case]:
    """Every broken file, with what its error has to say."""
    yield from _openings()
    yield from _counts()
    yield from _strings()
    yield from _arrays()
    yield from _pairs()
    yield from _tensors()
    yield from _places()


def truncations() -> Iterator[Case]:
    """Sound files of both widths of counts, cut at every byte."""
    for version in (1, 3):
        whole = small(version)
        for size in range(len(whole)):
            yield Case(f"version {version} cut at {size}", whole[:size], "")


def _openings() -> Iterator[Case]:
    for version in (0, 4, (1 << 31) + 1, (1 << 32) - 1):
        yield Case(f"version {version}", b"GGUF" + u32(version) + bytes(16), f"GGUF version {version}")
    yield Case("big-endian", b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian")
    yield Case("other letters", b"GGML" + u32(3) + bytes(16), "")


def _counts() -> Iterator[Case]:
    for label, number in {"2^31": 1 << 31, "2^63": 1 << 63, "-1": (1 << 64) - 1}.items():
        yield Case(f"{label} tensors", gguf_file(counts=(number, None)), "claims")
        yield Case(f"{label} pairs", gguf_file(counts=(None, number)), "claims")
    # Sparse files: what is announced would fit.
    yield Case("1,000,001 tensors", gguf_file(counts=(1_000_001, 0)), "1000001 tensors", size=1 << 40)
    yield Case("100,000 pairs", gguf_file(counts=(0, 100_000)), "100000 pairs", size=1 << 40)
    yield Case("one tensor more", gguf_file((), (info(),), bytes(32), counts=(2, None)), "")
    yield Case("one pair more", gguf_file((pair("a", BOOL, b"\1"),), counts=(None, 2)), "")


def _strings() -> Iterator[Case]:
    for label, number in {"2^31": 1 << 31, "2^63": 1 << 63, "-1": (1 << 64) - 1}.items():
        yield Case(f"key of {label}", gguf_file((string("a", length=number) + bytes(99),)), "a key of")
        yield Case(f"string of {label}", gguf_file((pair("a", STRING, string("a", length=number)),)), "claims")
        yield Case(f"name of {label}", gguf_file((), (string("a", length=number) + bytes(99),)), "a name of")
    yield Case("key of 65,536 bytes", gguf_file((pair("k" * 65_536, BOOL, b"\1"),)), "65536 bytes")
    yield Case("key of 5 bytes more", gguf_file((string("abc", length=8),)), "")
    yield Case("no UTF-8 in a key", gguf_file((pair(b"\xff", BOOL, b"\1"),)), "UTF-8")
    yield Case("no UTF-8 in a name", gguf_file((), (info(b"\xc0\x80"),), bytes(32)), "UTF-8")
    yield Case("name of 4,097 bytes", gguf_file((), (info("n" * 4097),), bytes(32)), "4097 bytes")
    yield Case("name with a NUL", gguf_file((), (info("a\0b"),), bytes(32)), "NUL")


def _arrays() -> Iterator[Case]:
    def file(value: bytes) -> bytes:
        return gguf_file((pair("a", ARRAY, value),), (), bytes(100))

    for label, number in {"2^31": 1 << 31, "2^61": 1 << 61, "2^63": 1 << 63, "-1": (1 << 64) - 1}.items():
        for kind in (U8, F32, BOOL, STRING, ARRAY, 12):
            yield Case(f"array of {label} of type {kind}", file(array(kind, b"", number)), "claims")
    endless = string("a") * 3 + string("a", length=1 << 62)
    yield Case("a string of 2^62 in an array", file(array(STRING, endless, 4)), "claims")
    yield Case("an array over the cap in a huge file", file(array(U8, b"", 10**8)), "claims", size=1 << 40)
    yield Case("empty strings over the cap", file(array(STRING, b"", 10**7 * 2)), "claims", size=1 << 40)
    yield Case("unknown type in an array", file(array(13, b"", 1)), "no type 13")
    yield Case("type 2^32 - 1 in an array", file(array((1 << 32) - 1, b"", 0)), "no type")
    yield Case("arrays nested 10,000 times", file(b"".join([array(ARRAY, b"", 1)] * 10_000)), "within arrays")
    yield Case("arrays nested 10 times", file(b"".join([array(ARRAY, b"", 1)] * 10) + array(U8, b"", 0)), "arrays")
    many = array(U8, b"", 0) * 70_000
    yield Case("70,000 arrays in one", file(array(ARRAY, many, 70_000)), "within arrays")


def _pairs() -> Iterator[Case]:
    flag = pair("a", BOOL, b"\1")
    yield Case("key twice", gguf_file((flag, flag)), "twice")
    yield Case("unknown type", gguf_file((pair("a", 13, bytes(8)),)), "no type 13")
    yield Case("a key of ours", gguf_file((pair("gguf.type:x", STRING, string("Q4_0")),)), "mapcell uses")
    for value in (0, 3, 33, (1 << 32) - 1):
        yield Case(f"alignment {value}", gguf_file((pair("general.alignment", U32, u32(value)),)), "power of two")
    yield Case("alignment as a string", gguf_file((pair("general.alignment", STRING, string("32")),)), "of type 8")
    yield Case("alignment as u64", gguf_file((pair("general.alignment", 10, bytes(8)),)), "of type 10")
    text = pair("{}", STRING, string(b"x" * (1 << 20)))
    texts = tuple(text.replace(b"{}", f"{n:02}".encode()) for n in range(17))
    yield Case("17 MiB of strings", gguf_file(texts), "without measure")


def _tensors() -> Iterator[Case]:
    wrong = {
        "unknown type": (info(kind=42), "tensor type 42"),
        "type 2^32 - 1": (info(kind=(1 << 32) - 1), "tensor type"),
        "a type given up": (info(kind=4), "tensor type 4"),
        "rank 33": (info(dims=(1,) * 33), "33 dimensions"),
        "rank 2^32 - 1": (string("x") + u32((1 << 32) - 1), "dimensions"),
        "dim 2^63": (info(dims=(1 << 63,)), "no dimension"),
        "dim -1": (info(dims=((1 << 64) - 1,)), "no dimension"),
        "product over 2^64": (info(dims=(1 << 50, 1 << 50)), "shape"),
        "product wraps to 8": (info(dims=(1 << 58, 1 << 6, 8)), "shape"),
        "no elements, strides over 2^64": (info(dims=(0, 1 << 58, 1 << 58)), "shape"),
        "half a block in a row": (info(dims=(48, 2), kind=Q4_0), "multiple of 32"),
        "a quantised scalar": (info(dims=(), kind=Q4_0), "multiple of 32"),
        "more bytes than there are": (info(dims=(9,)), "ends before"),
        "2^59 bytes": (info(dims=(1 << 59,), kind=24), "ends before"),
    }
    for label, (raw, says) in wrong.items():
        yield Case(f"tensor: {label}", gguf_file((), (raw,), bytes(32)), says)
    yield Case("name twice", gguf_file((), (info(), info(offset=32)), bytes(64)), "twice")
    aligned = pair("general.alignment", U32, u32(1 << 31))
    yield Case("alignment beyond the file", gguf_file((aligned,), (info(),), bytes(64)), "ends before")


def _places() -> Iterator[Case]:
    def file(first: int, second: int) -> bytes:
        return gguf_file((), (info("x", offset=first), info("y", offset=second)), bytes(128))

    yield Case("starts late", file(32, 64), "begin at 32")
    yield Case("gap", file(0, 64), "begin at 64")
    yield Case("overlap", file(0, 16), "begin at 16")
    yield Case("the same bytes twice", file(0, 0), "begin at 0")
    yield Case("in the wrong order", file(32, 0), "begin at 32")
    yield Case("offset 2^63", file(0, 1 << 63), "begin at")
    yield Case("offset -1", file(0, (1 << 64) - 1), "begin at")
