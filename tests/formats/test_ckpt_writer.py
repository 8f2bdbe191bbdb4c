"""The .ckpt writer: MindSpore's own bytes when unaligned, mappable files when aligned."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile.building import MemorySource
from mapcell_formats import ckpt_writer
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.ckpt_writer import TYPE_NAMES, Encryption, encode_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.dtypes import ITEMSIZE
from mapcell_formats.encrypted_ckpt import KEY_BYTES
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.items import Item, StringItem, TensorItem
from mapcell_formats.mindspore_ckpt import parse_string_key, verify_crc
from mapcell_formats.source import FileSource

from .mindspore_data import ENCRYPTED, FOLDER, PLAIN, content, key_of, mode_of

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda text: text.rstrip("\0"))


@st.composite
def tensors(draw: st.DrawFn, name: str, dtypes: list[str]) -> TensorItem:
    """A small tensor of any dtype and shape, empty ones and scalars included."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    item = TensorItem(name, draw(st.sampled_from(dtypes)), shape, b"")
    return TensorItem(name, item.dtype, shape, draw(st.binary(min_size=item.nbytes, max_size=item.nbytes)))


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Tensors and strings under different names, in any order."""
    chosen: list[Item] = []
    for name in draw(st.lists(names, unique=True, min_size=1, max_size=6)):
        if draw(st.booleans()):
            chosen.append(draw(tensors(name, list(TYPE_NAMES))))
        else:
            chosen.append(StringItem(name, draw(strings)))
    return chosen


def encoded(given_items: list[Item], **how: object) -> bytes:
    """The file's bytes."""
    return b"".join(bytes(chunk) for chunk in encode_ckpt(given_items, **how))  # type: ignore[arg-type]


def decoded(checkpoint: Checkpoint) -> list[Item]:
    """What was written, as the reader sees it."""
    found: list[Item] = [
        TensorItem(item.name, item.dtype, item.shape, content(checkpoint, item)) for item in checkpoint.tensors
    ]
    keys = [(parse_string_key(key), text) for key, text in checkpoint.metadata.items()]
    for number, (key, text) in enumerate(keys):
        assert key is not None
        found.insert(key[0] + number, StringItem(key[1], text))
    return found


@pytest.mark.parametrize("file", PLAIN)
def test_unaligned_files_are_mindspores(file: str) -> None:
    """Without alignment the bytes are exactly those that MindSpore wrote."""
    with FileSource.open(FOLDER / file) as source:
        again = encoded(decoded(read_checkpoint([source])), align=1)
    assert again == (FOLDER / file).read_bytes()


@given(items(), st.sampled_from([1, 2, 8, 64, 256, 4096]), st.booleans(), st.sampled_from([5, 64, 1 << 29]))
def test_what_is_written_is_read(written: list[Item], align: int, crc: bool, slice_bytes: int) -> None:
    """Names, dtypes, shapes, bytes, strings and their order survive, and every piece is aligned."""
    source = MemorySource(encoded(written, align=align, crc=crc, slice_bytes=slice_bytes))
    checkpoint = read_checkpoint([source])
    assert decoded(checkpoint) == written
    assert all(extent.offset % align == 0 for item in checkpoint.tensors for extent in item.extents)
    assert all(extent.nbytes <= slice_bytes for item in checkpoint.tensors for extent in item.extents)
    assert (verify_crc(source) is not None) == crc


@pytest.mark.parametrize("align", [1 << n for n in range(22)])
def test_alignment(align: int) -> None:
    """Every alignment up to the largest is reached, wherever the record starts."""
    several: list[Item] = [TensorItem("n" * n, "U8", (n,), bytes(n)) for n in (1, 7, 100, 120, 127, 128, 300)]
    checkpoint = read_checkpoint([MemorySource(encoded(several, align=align))])
    assert decoded(checkpoint) == several
    assert all(item.extents[0].offset % align == 0 for item in checkpoint.tensors)


def test_aligned_files_can_be_mapped(tmp_path: object) -> None:
    """By default every tensor of every dtype can be used where it lies."""
    path = f"{tmp_path}/x.ckpt"
    written: list[Item] = [TensorItem(dtype, dtype, (3,), bytes(3 * ITEMSIZE[dtype])) for dtype in TYPE_NAMES]
    with open(path, "wb") as file:
        file.writelines(encode_ckpt(written))
    with FileSource.open(path) as source:
        assert read_checkpoint([source]).mappable()


@pytest.mark.parametrize("file", ENCRYPTED)
def test_encrypted_files_are_read(file: str) -> None:
    """What MindSpore encrypted is encrypted again and holds the same."""
    key, mode = key_of(file), mode_of(file)
    with FileSource.open(FOLDER / file) as source:
        written = decoded(read_checkpoint([source], key=key, mode=mode))
    data = encoded(written, encryption=Encryption(key, mode))
    assert decoded(read_checkpoint([MemorySource(data)], key=key, mode=mode)) == written


@pytest.mark.parametrize("mode", KEY_BYTES)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 255, 256, 257, 1000])
def test_encrypted_blocks(mode: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of several blocks, whole or not at the end, comes back; no two blocks share an IV."""
    monkeypatch.setattr(ckpt_writer, "BLOCK_BYTES", 256)
    written: list[Item] = [TensorItem("x", "U8", (size,), os.urandom(size))]
    data = encoded(written, align=1, encryption=Encryption(bytes(16), mode))
    assert decoded(read_checkpoint([MemorySource(data)], key=bytes(16), mode=mode)) == written
    other = encoded(written, align=1, encryption=Encryption(bytes(16), mode))
    assert len(other) == len(data)
    assert other != data


def test_contents_are_not_copied() -> None:
    """The chunks that hold tensors are views of what was given."""
    data = bytearray(1000)
    chunks = list(encode_ckpt([TensorItem("x", "U8", (1000,), data)]))
    assert isinstance(chunks[1], memoryview)
    assert chunks[1].obj is data


def test_items_are_taken_one_at_a_time() -> None:
    """A tensor is asked for only when those before it have been written."""
    taken = []

    def source() -> object:
        for number in range(3):
            taken.append(number)
            yield TensorItem(str(number), "U8", (1,), b"x")

    chunks = iter(encode_ckpt(source()))  # type: ignore[arg-type]
    next(chunks)
    assert taken == [0]


WRONG: dict[str, tuple[list[Item], type[FormatError], str]] = {
    "C64": ([TensorItem("x", "C64", (1,), bytes(8))], UnsupportedFormat, "cannot hold C64"),
    "F8": ([TensorItem("x", "F8_E4M3", (1,), b"x")], UnsupportedFormat, "cannot hold F8_E4M3"),
    "dim 2^31": ([TensorItem("x", "U8", (0, 1 << 31), b"")], UnsupportedFormat, "dims up to"),
    "unknown dtype": ([TensorItem("x", "float32", (1,), bytes(4))], FormatError, "no dtype"),
    "too few bytes": ([TensorItem("x", "F32", (2,), bytes(4))], FormatError, "4 bytes given"),
    "too many bytes": ([TensorItem("x", "F32", (), bytes(8))], FormatError, "8 bytes given"),
    "negative dim": ([TensorItem("x", "F32", (-1,), b"")], FormatError, "no dimension"),
    "rank 33": ([TensorItem("x", "U8", (1,) * 33, b"x")], FormatError, "33 dimensions"),
    "name twice": ([StringItem("x", ""), TensorItem("x", "U8", (1,), b"x")], FormatError, "given twice"),
    "NUL in a name": ([StringItem("a\0b", "")], FormatError, "NUL"),
    "long name": ([StringItem("n" * 4097, "")], FormatError, "4097 bytes"),
    "half a surrogate in a name": ([StringItem("\ud800", "")], FormatError, "surrogate"),
    "half a surrogate in a string": ([StringItem("x", "\ud800")], FormatError, "surrogate"),
    "long string": ([StringItem("x", "a" * ((1 << 20) + 1))], FormatError, "1048577 characters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written(case: str) -> None:
    """What a reader would refuse is not written, and the error names the tensor."""
    written, error, says = WRONG[case]
    with pytest.raises(error, match=says) as caught:
        encoded(written)
    assert caught.value.tensor is not None


@pytest.mark.parametrize("align", [0, -1, 3, 100, 1 << 22])
def test_alignments_that_are_none(align: int) -> None:
    """Only powers of two up to 2 MiB are alignments."""
    with pytest.raises(ValueError, match="power of two"):
        encode_ckpt([], align=align)


def test_crc_and_encryption_exclude_each_other() -> None:
    """MindSpore could not read such a file back."""
    with pytest.raises(ValueError, match="exclude"):
        encode_ckpt([], crc=True, encryption=Encryption(bytes(16)))


@pytest.mark.parametrize(("key", "mode"), [(bytes(15), "AES-GCM"), (bytes(24), "SM4-CBC"), (bytes(16), "ROT13")])
def test_keys_that_do_not_fit(key: bytes, mode: str) -> None:
    """A key of a wrong length or an unknown mode is refused before anything is written."""
    with pytest.raises(FormatError):
        Encryption(key, mode)


@settings(max_examples=20)
@given(items())
def test_slices_of_the_usual_size_are_one_record(written: list[Item]) -> None:
    """Below 512 MiB no tensor is sliced."""
    checkpoint = read_checkpoint([MemorySource(encoded(written))])
    assert all(len(item.extents) <= 1 for item in checkpoint.tensors)
