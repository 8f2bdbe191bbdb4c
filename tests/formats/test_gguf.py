"""The GGUF reader against the gguf package's writer, and against bytes built by hand for what that cannot write."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFEndian, GGUFValueType

from hostile import corpus_gguf as hand
from hostile.building import MemorySource
from mapcell_formats import gguf as reader
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.gguf import READER, parse_type_key, type_key
from mapcell_formats.gguf_cursor import VERSIONS
from mapcell_formats.source import FileSource, read

RNG = np.random.default_rng(7)
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "F32": RNG.normal(size=(3, 5)).astype(np.float32),
    "F16": RNG.normal(size=(2, 3, 4)).astype(np.float16),
    "F64": RNG.normal(size=7),
    "I8": np.arange(-4, 4, dtype=np.int8),
    "I16": np.arange(6, dtype=np.int16).reshape(2, 3),
    "I32": np.array([[-1]], np.int32),
    "I64": np.array([1 << 40], np.int64),
}


def write(path: Path, arrays: dict[str, np.ndarray[Any, Any]], **pairs: Any) -> Path:
    """Writes `arrays` with the gguf package; a pair's name has "__" for "."."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in pairs.items():
        kinds = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool, list: writer.add_array}
        kinds[type(value)](key.replace("__", "."), value)
    for name, array in arrays.items():
        if array.dtype == ml_dtypes.bfloat16:
            writer.add_tensor(name, array.view(np.uint8), raw_dtype=GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def parsed(data: bytes) -> Checkpoint:
    """The checkpoint in `data`."""
    return READER.parse(MemorySource(data))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_the_package(name: str, tmp_path: Path) -> None:
    """Each plain type comes back with its dtype, in NumPy's order of dims, byte for byte, and can be mapped."""
    path = write(tmp_path / "m", {"other": np.ones(3, np.float32), name: ARRAYS[name]})
    with FileSource.open(path) as source:
        checkpoint = read_checkpoint([source])
        assert checkpoint.format == "gguf"
        assert checkpoint.mappable()
        tensor = checkpoint.tensors[1]
        (extent,) = tensor.extents
        raw = read(source, extent.offset, extent.nbytes)
    assert (tensor.name, tensor.dtype, tensor.shape) == (name, name, ARRAYS[name].shape)
    assert np.array_equal(np.frombuffer(raw, numpy_dtype(name)).reshape(tensor.shape), ARRAYS[name])


def test_bfloat16(tmp_path: Path) -> None:
    """BF16 is an array of bfloat16 and not raw blocks."""
    array = np.arange(8).reshape(2, 4).astype(ml_dtypes.bfloat16)
    with FileSource.open(write(tmp_path / "m", {"x": array})) as source:
        tensor = READER.parse(source).tensors[0]
    assert (tensor.dtype, tensor.shape) == ("BF16", (2, 4))


def test_metadata_of_the_package(tmp_path: Path) -> None:
    """Strings come as they are, the rest as JSON, floats with as few digits as they were written with."""
    path = write(
        tmp_path / "m",
        {},
        general__name="Ünï",
        eps=1e-5,
        big=3.4028234663852886e38,
        yes=True,
        tags=["a", "b"],
        n=[1, -2],
    )
    with FileSource.open(path) as source:
        assert READER.parse(source).metadata == {
            "general.architecture": "llama",
            "general.name": "Ünï",
            "eps": "1e-05",
            "big": "3.4028235e+38",
            "yes": "true",
            "tags": '["a", "b"]',
            "n": "[1, -2]",
        }


SCALARS: dict[str, tuple[int, bytes, str]] = {
    "uint8": (0, b"\xff", "255"),
    "int8": (1, b"\xff", "-1"),
    "uint16": (2, b"\xff\xff", "65535"),
    "int16": (3, b"\xfe\xff", "-2"),
    "uint32": (4, b"\xff" * 4, "4294967295"),
    "int32": (5, b"\xff" * 4, "-1"),
    "float32": (6, struct.pack("<f", 0.1), "0.1"),
    "float32 of 9 digits": (6, struct.pack("<f", 16777217.0 / 3), "5592405.5"),
    "float32 NaN": (6, struct.pack("<f", float("nan")), "NaN"),
    "float32 infinite": (6, struct.pack("<f", float("-inf")), "-Infinity"),
    "true": (7, b"\1", "true"),
    "false": (7, b"\0", "false"),
    "string": (8, hand.string('"a"'), '"a"'),
    "empty string": (8, hand.string(""), ""),
    "string that is no UTF-8": (8, hand.string(b"a\xff"), "a\\xff"),
    "uint64": (10, b"\xff" * 8, "18446744073709551615"),
    "int64": (11, b"\xff" * 8, "-1"),
    "float64": (12, struct.pack("<d", 0.1), "0.1"),
    "empty array": (9, hand.array(hand.STRING, b"", 0), "[]"),
    "array of bools": (9, hand.array(hand.BOOL, b"\0\1", 2), "[false, true]"),
    "array of float32": (9, hand.array(hand.F32, struct.pack("<2f", 0.1, -1), 2), "[0.1, -1.0]"),
    "array of strings": (9, hand.array(hand.STRING, hand.string("é") + hand.string(""), 2), '["é", ""]'),
    "array of arrays": (
        9,
        hand.array(hand.ARRAY, hand.array(hand.U8, b"\1\2", 2) + hand.array(hand.STRING, hand.string("x"), 1), 2),
        '[[1, 2], ["x"]]',
    ),
}


@pytest.mark.parametrize("case", SCALARS)
def test_every_type_of_value(case: str) -> None:
    """Each type that the specification has becomes text, arrays of arrays included."""
    kind, raw, text = SCALARS[case]
    pairs = (hand.pair("k", kind, raw), hand.pair("after", hand.STRING, hand.string("sound")))
    assert parsed(hand.gguf_file(pairs)).metadata == {"k": text, "after": "sound"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version(version: int) -> None:
    """Counts and dims take 32 bits in version 1 and 64 from then on."""
    checkpoint = parsed(hand.small(version))
    assert [(t.name, t.dtype, t.shape) for t in checkpoint.tensors] == [("x", "F32", (2, 4))]
    assert checkpoint.metadata["an.array"] == '[[1, 2], ["a"]]'


def test_big_endian_of_the_package(tmp_path: Path) -> None:
    """A big-endian file is refused for what it is."""
    writer = gguf.GGUFWriter(tmp_path / "m", "llama", endianess=GGUFEndian.BIG)
    writer.add_tensor("x", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with FileSource.open(tmp_path / "m") as source, pytest.raises(UnsupportedFormat, match="big-endian"):
        read_checkpoint([source])


def test_long_arrays_are_summarised() -> None:
    """A vocabulary of 130,000 words is not kept, but one that differs in a letter has another summary."""
    words = [f"word {n}" for n in range(130_000)]
    first, second = (_vocabulary([*words, last]).metadata["tokenizer.ggml.tokens"] for last in ("last", "lasT"))
    assert json.loads(first) == {"items": 130_001, "of": "string", "sha256": json.loads(first)["sha256"]}
    assert first != second


def _vocabulary(words: list[str]) -> Checkpoint:
    value = hand.array(hand.STRING, b"".join(map(hand.string, words)), len(words))
    pairs = (hand.pair("tokenizer.ggml.tokens", hand.ARRAY, value), hand.pair("after", hand.BOOL, b"\1"))
    checkpoint = parsed(hand.gguf_file(pairs, (hand.info(),), bytes(32)))
    assert checkpoint.metadata["after"] == "true"
    return checkpoint


@pytest.mark.parametrize(
    ("length", "kept"), [(reader.MAX_ARRAY_BYTES - 12, True), (reader.MAX_ARRAY_BYTES - 11, False)]
)
def test_where_summaries_begin(length: int, kept: bool) -> None:
    """An array of MAX_ARRAY_BYTES, type and count included, is kept; one byte more is not."""
    pairs = (hand.pair("k", hand.ARRAY, hand.array(hand.U8, b"\7" * length, length)),)
    value = json.loads(parsed(hand.gguf_file(pairs)).metadata["k"])
    assert (value == [7] * length) is kept


def test_long_strings_are_summarised() -> None:
    """A string beyond MAX_STRING_BYTES, such as a whole tokenizer.json, is not kept."""
    text = b"x" * (reader.MAX_STRING_BYTES + 1)
    data = hand.gguf_file((hand.pair("k", hand.STRING, hand.string(text)),))
    assert json.loads(parsed(data).metadata["k"])["bytes"] == len(text)


@pytest.mark.parametrize("alignment", [1, 2, 32, 4096])
def test_alignment(alignment: int) -> None:
    """Tensors follow one another at multiples of general.alignment; with less than an item's size nothing is mapped."""
    pair = hand.pair("general.alignment", hand.U32, hand.u32(alignment))
    second = -(-6 // alignment) * alignment
    infos = (hand.info("x", (3,), 1), hand.info("y", (2,), 0, second))
    data = hand.gguf_file((pair,), infos, bytes(second + 8), alignment=alignment)
    checkpoint = parsed(data)
    x, y = (tensor.extents[0].offset for tensor in checkpoint.tensors)
    assert (x % alignment, y - x, y + 8) == (0, second, len(data))
    assert checkpoint.metadata["general.alignment"] == str(alignment)


def test_bytes_after_the_last_tensor() -> None:
    """Padding after the last tensor, or what a tool has appended, belongs to nobody, as in llama.cpp."""
    data = hand.gguf_file((), (hand.info(),), bytes(32))
    assert parsed(data + bytes(100)).tensors == parsed(data).tensors


def test_no_elements_and_no_dims() -> None:
    """A tensor without elements has no extents; one without dims has one element."""
    infos = (hand.info("empty", (0, 3)), hand.info("scalar", ()))
    empty, scalar = parsed(hand.gguf_file((), infos, bytes(4))).tensors
    assert (empty.shape, empty.extents) == ((3, 0), ())
    assert (scalar.shape, scalar.nbytes) == ((), 4)


@pytest.mark.parametrize("kind", reader.QUANTISED)
def test_quantised_blocks(kind: int) -> None:
    """Quantised rows come as bytes, of the size that the gguf package has for them, with the type beside them."""
    blocks = reader.QUANTISED[kind]
    assert GGML_QUANT_SIZES[GGMLQuantizationType(kind)] == (blocks.elements, blocks.nbytes)
    assert GGMLQuantizationType(kind).name == blocks.name
    info = hand.info("x.y", (2 * blocks.elements, 3), kind)
    checkpoint = parsed(hand.gguf_file((), (info,), bytes(6 * blocks.nbytes)))
    (tensor,) = checkpoint.tensors
    assert (tensor.dtype, tensor.shape) == ("U8", (3, 2 * blocks.nbytes))
    assert checkpoint.metadata == {type_key("x.y"): blocks.name}


def test_types_agree_with_the_package() -> None:
    """Every type that files may hold is one of the package's, and it has no value type that the reader lacks."""
    plain = {GGMLQuantizationType(kind).name for kind in reader.DTYPES}
    assert plain == set(reader.DTYPES.values())
    assert {int(kind) for kind in GGUFValueType} == set(range(13))


def test_type_keys() -> None:
    """A type's key gives the tensor's name back; other keys are none."""
    assert parse_type_key(type_key("blk.0.q")) == "blk.0.q"
    assert parse_type_key("general.name") is None


def test_shards_are_joined() -> None:
    """Shards, of which the first may hold no tensor, make one checkpoint."""
    shards = [
        hand.gguf_file((hand.pair("split.no", 2, bytes([n, 0])),), infos, bytes(32 * len(infos)))
        for n, infos in enumerate([(), (hand.info("a"),), (hand.info("b"),)])
    ]
    checkpoint = read_checkpoint([MemorySource(data) for data in shards])
    assert [(t.name, t.extents[0].source) for t in checkpoint.tensors] == [("a", 1), ("b", 2)]


def test_only_the_header_is_read() -> None:
    """Of a file with many tensors no more than the header and one window is read."""
    body = 32 << 20
    data = hand.gguf_file((), (hand.info(dims=(body // 4,)),))
    source = MemorySource(data, size=len(data) + body)
    READER.parse(source)
    assert source.bytes_read <= 1 << 19


def test_the_offset_of_a_fault() -> None:
    """An error about the second tensor names it, and where its info stands."""
    first = hand.info("first")
    data = hand.gguf_file((), (first, hand.info("second", offset=5)), bytes(64))
    with pytest.raises(FormatError) as caught:
        parsed(data)
    assert (caught.value.tensor, caught.value.offset) == ("second", 24 + len(first))
