"""Reading every byte: digests, and numbers that are none."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import save_file

from hostile.building import MemorySource
from mapcell_formats.ckpt_writer import encode_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.errors import FormatError
from mapcell_formats.items import TensorItem
from mapcell_formats.manifest import TensorEntry
from mapcell_formats.pieces import PIECE_BYTES
from mapcell_formats.safetensors_writer import encode_safetensors
from mapcell_formats.source import FileSource
from mapcell_formats.verify import Report, cut, examine, examine_parts, sha256

BIG = np.arange(PIECE_BYTES // 4 + 7, dtype=np.float32)
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "big": BIG,
    "half": np.ones((2, 3), np.float16),
    "none": np.zeros((0, 4), np.int8),
}


def examined(path: Path, nans: bool = False) -> Report:
    """The report on the file."""
    with FileSource.open(path) as source:
        return examine(read_checkpoint([source]), nans=nans)


def test_report(tmp_path: Path) -> None:
    """Each tensor's digest is that of its bytes, whatever pieces they are read in."""
    save_file(ARRAYS, tmp_path / "x")
    report = examined(tmp_path / "x")
    assert report.nbytes == sum(array.nbytes for array in ARRAYS.values())
    assert {t.name: (t.dtype, t.shape, t.nbytes, t.digest, t.nans) for t in report.tensors} == {
        name: (code, array.shape, array.nbytes, "blake3:" + blake3(array.tobytes()).hexdigest(), None)
        for (name, array), code in zip(ARRAYS.items(), ("F32", "F16", "I8"), strict=True)
    }


def test_the_same_tensors_have_one_version(tmp_path: Path) -> None:
    """The digest depends on tensors and strings, not on order, alignment or cuts; another byte is another version."""
    save_file(ARRAYS, tmp_path / "one", {"a": "b"})
    items = [TensorItem(name, {"f4": "F32", "f2": "F16", "i1": "I8"}[array.dtype.str[1:]], array.shape, array.tobytes())
             for name, array in reversed(ARRAYS.items())]  # fmt: skip
    two = MemorySource(b"".join(map(bytes, encode_safetensors(items, {"a": "b"}, align=4096))))
    assert examine(read_checkpoint([two])).version == examined(tmp_path / "one").version
    other = MemorySource(b"".join(map(bytes, encode_safetensors(items, {"a": "c"}))))
    assert examine(read_checkpoint([other])).version != examined(tmp_path / "one").version


NUMBERS = [1.0, float("nan"), float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize(
    ("dtype", "infs"), [("F16", 2), ("BF16", 2), ("F32", 2), ("F64", 2), ("C64", 2), ("F8_E5M2", 2), ("F8_E4M3", 0)]
)
def test_numbers_that_are_none(dtype: str, infs: int) -> None:
    """NaNs and infinities are counted in every floating dtype; F8_E4M3 has no infinities, so they are NaNs in it."""
    with np.errstate(invalid="ignore"):
        array = np.array(NUMBERS).astype(numpy_dtype(dtype))
    entry = TensorEntry("x", dtype, (5,), 0, 0, array.nbytes)
    report = examine_parts([(entry, cut(memoryview(array.tobytes())))], {}, nans=True)
    assert (report.tensors[0].nans, report.tensors[0].infs) == (4 - infs, infs)


def test_numbers_across_pieces() -> None:
    """Counts of all pieces are added up; integers have neither."""
    array = BIG.copy()
    array[[0, -1]] = np.nan
    entries = [TensorEntry("x", "F32", array.shape, 0, 0, array.nbytes), TensorEntry("i", "I32", (1,), 0, 0, 4)]
    data = [array.view(np.uint8).data, memoryview(b"\xff" * 4)]
    report = examine_parts([(e, cut(d)) for e, d in zip(entries, data, strict=True)], {}, nans=True)
    assert [(t.nans, t.infs) for t in report.tensors] == [(2, 0), (0, 0)]


def test_sha256(tmp_path: Path) -> None:
    """The SHA-256 is that of the whole file."""
    data = bytes(range(256)) * (2 * PIECE_BYTES // 256) + b"x"
    (tmp_path / "x").write_bytes(data)
    with FileSource.open(tmp_path / "x") as source:
        assert sha256(source) == hashlib.sha256(data).hexdigest()


def test_a_checkpoints_own_checksum() -> None:
    """A .ckpt that differs from its own CRC is refused, where reading alone would not notice."""
    sound = b"".join(map(bytes, encode_ckpt([TensorItem("x", "F32", (100,), bytes(400))], crc=True)))
    assert examine(read_checkpoint([MemorySource(sound)])).nbytes == 400
    at = sound.index(bytes(400)) + 10
    broken = sound[:at] + b"\1" + sound[at + 1 :]
    with pytest.raises(FormatError, match=f"{zlib.crc32(broken[:-17]):#010x}"):
        examine(read_checkpoint([MemorySource(broken)]))
