"""The safetensors writer: what it writes, the library reads, and every tensor can be mapped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize

from hostile.building import MemorySource
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.dtypes import CODES, ITEMSIZE
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.items import Item, StringItem, TensorItem
from mapcell_formats.safetensors_writer import encode_safetensors
from mapcell_formats.source import FileSource

from .mindspore_data import FOLDER, contents, expected
from .test_ckpt_writer import names, tensors


def encoded(items: list[Item], metadata: dict[str, str] | None = None, align: int = 256) -> bytes:
    """The file's bytes."""
    return b"".join(bytes(chunk) for chunk in encode_safetensors(items, metadata, align=align))


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Tensors of any dtype under different names."""
    chosen = draw(st.lists(names.filter(lambda name: name != "__metadata__"), unique=True, max_size=6))
    return [draw(tensors(name, list(CODES))) for name in chosen]


@given(items(), st.dictionaries(names, names, max_size=3), st.sampled_from([1, 8, 64, 4096]))
def test_what_is_written_is_read(written: list[Item], metadata: dict[str, str], align: int) -> None:
    """Library and reader find the same names, shapes and bytes, and every tensor lies on its item size."""
    data = encoded(written, metadata, align)
    given_bytes = {item.name: (item.shape, bytes(item.data)) for item in written if isinstance(item, TensorItem)}
    assert {name: (tuple(info["shape"]), bytes(info["data"])) for name, info in deserialize(data)} == given_bytes
    checkpoint = read_checkpoint([MemorySource(data)])
    assert contents(checkpoint) == given_bytes
    assert checkpoint.metadata == metadata
    for item in checkpoint.tensors:
        assert all(extent.offset % ITEMSIZE[item.dtype] == 0 for extent in item.extents)


@pytest.mark.parametrize("align", [1, 8, 64, 256, 4096, 1 << 21])
def test_alignment(align: int) -> None:
    """Every tensor whose size is a multiple of the alignment starts at one, odd ones between them or not."""
    sizes = (3, align, 40, 2 * align, 1, 3 * align, 5 * align)
    written: list[Item] = [TensorItem(str(n), "U8", (size,), bytes(size)) for n, size in enumerate(sizes)]
    checkpoint = read_checkpoint([MemorySource(encoded(written, align=align))])
    for item in checkpoint.tensors:
        if item.nbytes % align == 0:
            assert item.extents[0].offset % align == 0


def test_order_is_kept_where_it_is_free() -> None:
    """Tensors of like sizes stay in the order in which they were given, which is how a model reads them."""
    written: list[Item] = [TensorItem(name, "F32", (64,), bytes(256)) for name in ("b", "a", "c")]
    assert [item.name for item in read_checkpoint([MemorySource(encoded(written))]).tensors] == ["b", "a", "c"]


def test_mindspores_file_again() -> None:
    """MindSpore's file, written again, holds the same."""
    with FileSource.open(FOLDER / "lenet5.safetensors") as source:
        found = contents(read_checkpoint([source]))
    written: list[Item] = [TensorItem(name, "F32", shape, data) for name, (shape, data) in found.items()]
    assert contents(read_checkpoint([MemorySource(encoded(written))])) == expected("lenet5.safetensors")


def test_contents_are_not_copied() -> None:
    """The chunks that hold tensors are views of what was given."""
    data = bytearray(1000)
    chunks = list(encode_safetensors([TensorItem("x", "U8", (1000,), data)]))
    assert isinstance(chunks[1], memoryview)
    assert chunks[1].obj is data


WRONG: dict[str, tuple[list[Item], dict[str, str], type[FormatError], str]] = {
    "string": ([StringItem("x", "")], {}, UnsupportedFormat, "holds no strings"),
    "metadata's name": ([TensorItem("__metadata__", "U8", (1,), b"x")], {}, FormatError, "means metadata"),
    "size": ([TensorItem("x", "F32", (1,), b"x")], {}, FormatError, "1 bytes given"),
    "name twice": ([TensorItem("x", "U8", (1,), b"x")] * 2, {}, FormatError, "given twice"),
    "half a surrogate": ([], {"a": "\ud800"}, FormatError, "surrogate"),
    "too long a header": ([], {"a": "a" * 100_000_000}, FormatError, "a header of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written(case: str) -> None:
    """What a reader would refuse is not written."""
    written, metadata, error, says = WRONG[case]
    with pytest.raises(error, match=says):
        encoded(written, metadata)
