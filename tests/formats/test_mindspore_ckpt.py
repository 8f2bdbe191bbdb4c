"""The .ckpt reader against MindSpore's files and against what MindSpore accepts."""

from __future__ import annotations

import zlib

import pytest

from hostile.building import MemorySource, field, record, tensor, varint
from mapcell_formats import mindspore_ckpt
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.errors import FormatError
from mapcell_formats.mindspore_ckpt import (
    READER,
    has_trailer,
    int4_key,
    parse_string_key,
    string_key,
    verify_crc,
)
from mapcell_formats.source import FileSource

from .mindspore_data import FOLDER, PLAIN, content, contents, expected, facts


def parse(data: bytes) -> Checkpoint:
    """The checkpoint in `data`."""
    return READER.parse(MemorySource(data))


def with_trailer(data: bytes) -> bytes:
    """`data` with its CRC behind it."""
    return data + b"crc_num" + zlib.crc32(data).to_bytes(10, "big")


@pytest.mark.parametrize("file", PLAIN)
def test_reads_what_mindspore_wrote(file: str) -> None:
    """Every tensor of MindSpore's files has the shape and bytes that MindSpore saved."""
    with FileSource.open(FOLDER / file) as source:
        checkpoint = READER.parse(source)
        found = contents(checkpoint)
        assert found | expected(file) == found
        assert list(found)[: len(expected(file))] == [name for name in found if name in expected(file)]


def test_dtypes_are_mindspores() -> None:
    """Each dtype name of MindSpore's is the code that its tensor in dtypes.ckpt gets."""
    spelled = {"Bool": "BOOL", "BFloat16": "BF16"} | {
        f"{name}{bits}": f"{short}{bits}"
        for name, short in (("Int", "I"), ("UInt", "U"), ("Float", "F"))
        for bits in (8, 16, 32, 64)
    }
    with FileSource.open(FOLDER / "dtypes.ckpt") as source:
        tensors = READER.parse(source).tensors
    assert len(tensors) == 52
    for item in tensors:
        assert item.dtype == spelled[facts()[f"dtypes.ckpt|{item.name}"]["dtype"]]


def test_appended_values() -> None:
    """append_dict's numbers are scalars behind the parameters, its string is in the metadata with its place."""
    with FileSource.open(FOLDER / "lenet5_append.ckpt") as source:
        checkpoint = READER.parse(source)
        found = contents(checkpoint)
    assert list(found)[-3:] == ["epoch_num", "lr", "done"]
    assert found["epoch_num"] == ((), (7).to_bytes(8, "little"))
    assert found["lr"] == ((), b"\x00\x00\x00\x3e")
    assert found["done"] == ((), b"\x01")
    assert checkpoint.metadata == {string_key(11, "author"): "a string value"}


@pytest.mark.parametrize("name", ["author", "", "a:b:c", "1:2", "größe"])
def test_string_keys_come_apart_again(name: str) -> None:
    """Place and name of a string come back from its key, whatever the name holds."""
    assert parse_string_key(string_key(12, name)) == (12, name)


@pytest.mark.parametrize("key", ["format", "ckpt.string", "ckpt.string:1", "ckpt.string:x:a", "ckpt.string:-1:a", ""])
def test_other_keys_are_no_string_keys(key: str) -> None:
    """Metadata of other kinds is left alone, and so is a place of thousands of digits."""
    assert parse_string_key(key) is None
    assert parse_string_key(f"ckpt.string:{'9' * 5000}:a") is None


F4 = b"abcd"
HALVES = [record("x", tensor((2,), content=half)) for half in (b"abcd", b"efgh")]
TAG = b"\n" + varint(1, 9) + b"x"
TENSOR = field(2, b"\x08" + varint(1, 10) + tensor((), content=F4))
PADDED = field(2, field(15, bytes(300)) + tensor(content=F4))
SOUND: dict[str, tuple[bytes, tuple[int, ...], bytes]] = {
    "no dims": (record("x", tensor((), content=F4)), (), F4),
    "dims of 0 with one element": (record("x", tensor((0,), content=F4)), (), F4),
    "dims of 0 without elements": (record("x", tensor((0,), content=b"")), (0,), b""),
    "no elements": (record("x", tensor((2, 0, 3), content=b"")), (2, 0, 3), b""),
    "packed dims": (record("x", field(1, b"\x02\x01") + tensor((), content=F4 * 2)), (2, 1), F4 * 2),
    "packed and unpacked dims": (record("x", field(1, b"\x02") + tensor((1,), content=F4 * 2)), (2, 1), F4 * 2),
    "fields in reverse": (
        record("x", field(3, F4) + field(2, b"Float32") + field(1, 1)),
        (1,),
        F4,
    ),
    "tensor before its name": (field(1, field(2, tensor(content=F4)) + field(1, b"x")), (1,), F4),
    "type and content twice": (record("x", field(2, b"Int8") + field(3, b"?") + tensor(content=F4)), (1,), F4),
    "name twice": (field(1, field(1, b"y") + field(1, b"x") + field(2, tensor(content=F4))), (1,), F4),
    "tensor in two parts": (
        field(1, field(1, b"x") + field(2, field(1, 1) + field(2, b"Float32")) + field(2, field(3, F4))),
        (1,),
        F4,
    ),
    "map parameter, then a tensor": (field(1, field(1, b"x") + field(3, b"") + field(2, tensor(content=F4))), (1,), F4),
    "overlong numbers": (
        b"\x8a\x80\x00" + varint(len(TAG + TENSOR), 10) + TAG + TENSOR,
        (1,),
        F4,
    ),
    "unknown fields everywhere": (
        field(9, 1)
        + field(15, bytes(9))
        + field(1, field(7, b"?") + field(1, b"x") + b"\x79abcdefgh" + PADDED)
        + b"\x7dabcd",
        (1,),
        F4,
    ),
    "two slices": (
        b"".join(HALVES),
        (2,),
        F4 + b"efgh",
    ),
    "slices with padding between": (
        field(15, b"  ").join(HALVES),
        (2,),
        F4 + b"efgh",
    ),
    "the last slice's dims and type": (
        record("x", tensor((9,), "Int8", F4)) + record("x", tensor((2,), content=b"efgh")),
        (2,),
        F4 + b"efgh",
    ),
    "trailer": (with_trailer(record("x", tensor(content=F4))), (1,), F4),
    "trailer that is wrong": (record("x", tensor(content=F4)) + b"crc_num" + bytes(10), (1,), F4),
}


@pytest.mark.parametrize("case", SOUND)
def test_reads_what_mindspore_reads(case: str) -> None:
    """Everything that protobuf and MindSpore allow is read as they read it."""
    data, shape, raw = SOUND[case]
    checkpoint = parse(data)
    assert contents(checkpoint) == {"x": (shape, raw)}


def test_a_later_record_replaces() -> None:
    """Of equal names that are not adjacent the later counts, in the place of the earlier."""
    data = record("x", tensor(content=b"old!")) + record("y") + record("x", tensor(content=b"new!"))
    checkpoint = parse(data)
    assert [item.name for item in checkpoint.tensors] == ["x", "y"]
    assert content(checkpoint, checkpoint.tensors[0]) == b"new!"


def test_slices_stay_extents() -> None:
    """Slices are not joined in memory: the tensor has as many extents, and cannot be mapped as it lies."""
    checkpoint = parse(record("x", tensor((2,))) * 2)
    assert len(checkpoint.tensors[0].extents) == 2
    assert not checkpoint.mappable()


def test_int4_is_bytes_with_a_mark() -> None:
    """Int4 tensors are I8, one byte an element, and marked in the metadata."""
    checkpoint = parse(record("q", tensor((4,), "Int4", b"\x12\x34\x56\x78")))
    assert checkpoint.tensors[0].dtype == "I8"
    assert checkpoint.metadata == {int4_key("q"): "1"}


@pytest.mark.parametrize("text", ["", "a string", "größe 層 😀"])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_strings(text: str, padding: int) -> None:
    """Strings come back without the NULs behind them, with the number of tensors before them."""
    raw = (text + "\0" * padding).encode("utf-32-le")
    checkpoint = parse(record("x") + record("s", tensor((0,), "str", raw)) + record("y"))
    assert checkpoint.metadata == {string_key(1, "s"): text}
    assert len(checkpoint.tensors) == 2


def test_contents_are_not_read() -> None:
    """A large tensor costs a window or two, not its size."""
    source = MemorySource(record("x", tensor((1_000_000,), content=bytes(4_000_000))) + record("y"))
    READER.parse(source)
    assert source.bytes_read < 20_000


def test_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are counted: the last allowed one is read, one more is refused."""
    monkeypatch.setattr(mindspore_ckpt, "MAX_TENSORS", 2)
    assert len(parse(record("a") + record("b")).tensors) == 2
    with pytest.raises(FormatError, match="too many records"):
        parse(record("a") + record("b") + record("c"))


def test_verify_crc() -> None:
    """The CRC is compared when there is one; None says that there is none."""
    sound = record("x", tensor((600_000,), content=bytes(2_400_000)))
    assert verify_crc(MemorySource(sound)) is None
    assert verify_crc(MemorySource(with_trailer(sound))) == zlib.crc32(sound)
    damaged = bytearray(with_trailer(sound))
    damaged[1_500_000] ^= 1
    with pytest.raises(FormatError, match="as the trailer says") as caught:
        verify_crc(MemorySource(bytes(damaged)))
    assert caught.value.offset == len(sound)


@pytest.mark.parametrize("size", [0, 7, 16])
def test_no_trailer_in_few_bytes(size: int) -> None:
    """A file shorter than a trailer has none."""
    assert not has_trailer(MemorySource(b"crc_num" * 3, size=size))
