"""Assembles torch files by hand: pickles opcode by opcode, and the archives around them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from mapcell_formats.pickle_usual import FIRST_MEMO, MEMO_ITEMS

from .zip_building import Part, zip_file

ORDERED_DICT = b"ccollections\nOrderedDict\n"
V2 = b"ctorch._utils\n_rebuild_tensor_v2\n"
V3 = b"ctorch._utils\n_rebuild_tensor_v3\n"


def pickled(body: bytes, protocol: int = 2) -> bytes:
    """`body` between PROTO and STOP."""
    return bytes([0x80, protocol]) + body + b"."


def text(value: str | bytes) -> bytes:
    """Pushes text."""
    raw = value if isinstance(value, bytes) else value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def number(value: int) -> bytes:
    """Pushes an integer."""
    if 0 <= value < 256:
        return bytes([ord("K"), value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return bytes([0x8A, len(raw)]) + raw


def tuple_of(*items: bytes) -> bytes:
    """Pushes a tuple of what each item pushes."""
    return b"(" + b"".join(items) + b"t"


def numbers(values: tuple[int, ...]) -> bytes:
    """Pushes a tuple of integers."""
    return tuple_of(*map(number, values))


def dict_of(items: Mapping[str, bytes]) -> bytes:
    """Pushes a dict."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key: str = "0", elements: int = 2, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """Pushes a storage."""
    return tuple_of(text("storage"), kind, text(key), text("cpu"), number(elements)) + b"Q"


def tensor(
    shape: tuple[int, ...] = (2,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    inner: bytes | None = None,
    more: tuple[bytes, ...] = (),
    function: bytes = V2,
) -> bytes:
    """Pushes a tensor."""
    parts = (inner or storage(), number(offset), numbers(shape), numbers(strides), b"\x89", ORDERED_DICT + b")R")
    return function + tuple_of(*parts, *more) + b"R"


def torch_file(
    pickle: bytes, storages: Mapping[str, bytes] | None = None, others: Mapping[str, bytes] | None = None
) -> bytes:
    """The archive that torch.save would write, with FloatStorage "0" of two elements unless told else."""
    parts = [Part("m/data.pkl", pickle), *(Part(f"m/{name}", data) for name, data in (others or {}).items())]
    held = {"0": bytes(range(8))} if storages is None else storages
    return zip_file([*parts, *(Part(f"m/data/{key}", data) for key, data in held.items())])


def state(**tensors: bytes) -> bytes:
    """The file of a state dict, whose tensors are pushed by what is given."""
    return torch_file(pickled(dict_of(tensors)))


# What comes before the first usual tensor: five objects that tensors fetch, and a memo filled up to FIRST_MEMO.
_FETCHED = (text("storage"), b"ctorch\nFloatStorage\n", text("cpu"), ORDERED_DICT, V2)
PROLOGUE = b"](" + b"".join((_FETCHED[i] if i < len(_FETCHED) else b"N") + b"q" + bytes([i]) for i in range(FIRST_MEMO))


def usual(
    memo: int, key: bytes = b"7", shape: bytes = b"K\x02M\x2c\x01\x86", strides: bytes = b"M\x2c\x01K\x01\x86"
) -> bytes:
    """A tensor as torch puts it down when the memo holds `memo` objects."""
    puts = [b"r" + struct.pack("<I", memo + i) for i in range(MEMO_ITEMS)]
    return (
        b"h\x04((h\x00h\x01X" + len(key).to_bytes(4, "little") + key + puts[0] + b"h\x02M\x58\x02t" + puts[1] + b"Q"
        b"K\x00" + shape + puts[2] + strides + puts[3] + b"\x89h\x03)R" + puts[4] + b"t" + puts[5] + b"R" + puts[6]
    )
