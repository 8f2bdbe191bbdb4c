"""MindSpore .ckpt files, plain and encrypted, that attackers or broken disks send."""

from __future__ import annotations

from collections.abc import Iterator

from .building import Case, field, record, tensor, varint

SMALL = record("x", tensor((2,), content=bytes(8))) + record("s", tensor((0,), "str", "hi".encode("utf-32-le")))


def cases() -> Iterator[Case]:
    """Every broken plain file, with what its error has to say."""
    yield from _wire()
    yield from _records()
    yield from _tensors()
    yield from _strings()


def truncations() -> Iterator[Case]:
    """A sound file, cut at every byte but the one between its records."""
    first = len(record("x", tensor((2,), content=bytes(8))))
    for size in range(len(SMALL)):
        if size != first:
            yield Case(f"cut at {size}", SMALL[:size], "")


def _wire() -> Iterator[Case]:
    for label, length in {"2^31": 1 << 31, "2^63": 1 << 63, "-1": (1 << 64) - 1}.items():
        yield Case(f"record of {label}", b"\n" + varint(length) + b"\n\x01x", "claims")
        yield Case(f"name of {label}", field(1, b"\n" + varint(length) + b"x"), "claims")
        content = field(1, b"\n\x01x" + field(2, field(1, 1) + b"\x1a" + varint(length) + bytes(4)))
        yield Case(f"content of {label}", content, "claims")
    yield Case("varint without end", b"\n" + b"\xff" * 100_000, "without an end")
    yield Case("varint of 11 bytes", record("x") + b"\x7a" + varint(3, width=11) + b"abc", "without an end")
    yield Case("varint cut", record("x") + b"\n\xff", "within a number")
    yield Case("field number 0", record("x") + b"\x02\x00", "field number 0")
    yield Case("field number 2^29", record("x") + varint(1 << 32) + b"\x00", "field number")
    for wire in (3, 4, 6, 7):
        yield Case(f"wire type {wire}", record("x") + bytes([8 | wire]), f"wire type {wire}")
    yield Case("fixed64 cut", record("x") + b"\x79abc", "claims 8 bytes")
    yield Case("fixed32 cut", record("x") + b"\x7dabc", "claims 4 bytes")
    yield Case("text after", record("x") + b"hello, world", "")
    yield Case("zeros after", record("x") + bytes(10), "field number 0")
    yield Case("too many fields", field(1, field(1, b"x") + b"\x78\x00" * 300 + field(2, tensor())), "many fields")


def _records() -> Iterator[Case]:
    yield Case("no record", field(15, bytes(8)), "")
    yield Case("no name", field(1, field(2, tensor())), "without a name")
    yield Case("name as a number", field(1, field(1, 7) + field(2, tensor())), "without a name")
    yield Case("no tensor", field(1, field(1, b"x")), "without a tensor")
    yield Case("map parameter", field(1, field(1, b"x") + field(3, b"")), "map parameter")
    yield Case("no UTF-8 in a name", record(b"\xff\xfe"), "UTF-8")
    yield Case("overlong UTF-8 in a name", record(b"\xc0\x80"), "UTF-8")
    yield Case("name of 4097 bytes", record("n" * 4097), "4097 bytes")
    yield Case("name with a NUL", record("a\0b"), "NUL")


def _tensors() -> Iterator[Case]:
    wrong = {
        "no type": (field(1, 1) + field(3, bytes(4)), "tensor_type"),
        "no content": (field(1, 1) + field(2, b"Float32"), "tensor_content"),
        "unknown type": (tensor(type_name="Float128"), "Float128"),
        "type in small letters": (tensor(type_name="float32"), "float32"),
        "complex": (tensor(type_name="Complex64", content=bytes(8)), "Complex64"),
        "type no UTF-8": (field(1, 1) + field(2, b"\xff") + field(3, bytes(4)), "UTF-8"),
        "type of 10,000 bytes": (tensor(type_name="F" * 10_000), "10000 bytes"),
        "short": (tensor((2,)), "4 bytes of content"),
        "long": (tensor((1,), content=bytes(8)), "8 bytes of content"),
        "empty scalar": (tensor((), content=b""), "0 bytes of content"),
        "dim 0 with two elements": (tensor((0,), content=bytes(8)), "8 bytes of content"),
        "dim -1": (tensor(((1 << 64) - 1,)), "-1 is no dimension"),
        "dim 2^31": (tensor((1 << 31,)), "no dimension"),
        "dim 2^63": (tensor((1 << 63,)), "no dimension"),
        "product over 2^64": (tensor(((1 << 31) - 1,) * 3), "shape"),
        "no elements, strides over 2^64": (tensor((0, *((1 << 31) - 1,) * 3), content=b""), "shape"),
        "rank 33": (tensor((1,) * 33), "33 dimensions"),
        "rank 100,000, packed": (field(1, b"\x01" * 100_000) + tensor(()), "33 dimensions"),
        "packed dims cut": (field(1, b"\x80") + tensor(()), "within a number"),
    }
    for label, (proto, says) in wrong.items():
        yield Case(f"tensor: {label}", record("x", proto), says)
    yield Case("slices too long together", record("x") + record("x"), "8 bytes of content")
    yield Case("slices too short together", record("x", tensor((3,))) * 2, "8 bytes of content")


def _strings() -> Iterator[Case]:
    wrong = {
        "of 3 bytes": b"abc",
        "beyond Unicode": b"\xff\xff\xff\xff",
        "half a surrogate": b"\x00\xd8\x00\x00",
        "of 5 MiB": bytes(5 << 20),
    }
    for label, content in wrong.items():
        yield Case(f"string {label}", record("s", tensor((0,), "str", content)), "string")
