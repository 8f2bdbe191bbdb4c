"""The .npz writer, read back by NumPy and zipfile."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mapcell_formats import npz_writer
from mapcell_formats.dtypes import code_of, numpy_dtype
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.items import Item, StringItem, TensorItem
from mapcell_formats.npz_writer import MAX_NPZ_ALIGN, NPZ_DTYPES, encode_npz

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    **{code: np.arange(6).astype(numpy_dtype(code)).reshape(2, 3) for code in NPZ_DTYPES},
    "scalar": np.array(1.5),
    "empty": np.zeros((0, 3), np.int16),
    "a/b.c": np.ones(1000),
    "größe": np.arange(3),
}


def item(name: str, array: np.ndarray[Any, Any]) -> TensorItem:
    """`array` as it is to be written."""
    return TensorItem(name, code_of(array.dtype), array.shape, array.tobytes())


def written(items: Sequence[Item], align: int = 256) -> bytes:
    """The file."""
    return b"".join(bytes(chunk) for chunk in encode_npz(items, align=align))


ALL = [item(name, array) for name, array in ARRAYS.items()]


def loaded(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """What numpy.load finds in it."""
    with np.load(io.BytesIO(data)) as arrays:
        return dict(arrays)


def positions(data: bytes) -> dict[str, int]:
    """Where each member's elements begin, as zipfile and the array's own header have it."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            at = info.header_offset
            start = at + 30 + sum(int.from_bytes(data[at + k : at + k + 2], "little") for k in (26, 28))
            found[info.filename] = start + 10 + int.from_bytes(data[start + 8 : start + 10], "little")
    return found


def test_numpy_reads_it() -> None:
    """numpy.load gives every array back, with its name, dtype and shape."""
    found = loaded(written(ALL))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("align", [1, 64, 256, 4096, MAX_NPZ_ALIGN])
def test_elements_are_aligned(align: int) -> None:
    """Every array's elements begin at a multiple of the alignment, whatever the names before it."""
    data = written(ALL, align)
    assert all(start % align == 0 for start in positions(data).values())
    assert positions(data).keys() == {f"{name}.npy" for name in ARRAYS}


@pytest.mark.parametrize("wide", [0, 200, 3000])
def test_zip64(monkeypatch: pytest.MonkeyPatch, wide: int) -> None:
    """Sizes, positions and counts beyond what zip has fields for stand in zip64 records; here that begins early."""
    monkeypatch.setattr(npz_writer, "_WIDE", wide)
    monkeypatch.setattr(npz_writer, "_WIDE_COUNT", 5)
    data = written(ALL)
    assert all(start % 256 == 0 for start in positions(data).values())
    assert all(np.array_equal(found, ARRAYS[name]) for name, found in loaded(data).items())


def test_many_members() -> None:
    """More members than 16 bits can count."""
    one = np.zeros(1, np.uint8)
    data = written([item(str(number), one) for number in range(65_536)])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 65_536


def test_the_same_tensors_make_the_same_file() -> None:
    """Nothing in the file depends on when it was written."""
    assert written(ALL) == written(ALL)


def test_nothing() -> None:
    """No tensors make an empty archive."""
    assert loaded(written([])) == {}


REFUSED: dict[str, tuple[Item, int, str]] = {
    "bfloat16": (TensorItem("x", "BF16", (1,), bytes(2)), 64, "cannot hold BF16"),
    "float8": (TensorItem("x", "F8_E4M3", (1,), bytes(1)), 64, "cannot hold F8_E4M3"),
    "string": (StringItem("x", "text"), 64, "no strings"),
    "too few bytes": (TensorItem("x", "F32", (2,), bytes(4)), 64, "4 bytes given"),
    "alignment": (TensorItem("x", "F32", (1,), bytes(4)), 2 * MAX_NPZ_ALIGN, "at most 16384"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_hold(case: str) -> None:
    """What NumPy itself lacks is refused, by the tensor's name."""
    refused, align, says = REFUSED[case]
    with pytest.raises(FormatError, match=says) as caught:
        written([refused], align)
    if says != "4 bytes given":
        assert isinstance(caught.value, UnsupportedFormat)


def test_names_only_once() -> None:
    """Two tensors of one name are refused."""
    with pytest.raises(FormatError, match="twice"):
        written([ALL[0], ALL[0]])
