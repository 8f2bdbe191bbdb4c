"""What writers are given is looked at before it is written."""

from __future__ import annotations

import numpy as np
import pytest

from mapcell_formats.errors import FormatError
from mapcell_formats.items import StringItem, TensorItem, checked

BUFFERS = {
    "bytes": (b"12345678", (2,)),
    "bytearray": (bytearray(b"12345678"), (2,)),
    "array": (np.arange(2, dtype=np.int32), (2,)),
    "array of two dimensions": (np.arange(4, dtype=np.int32).reshape(2, 2), (2, 2)),
    "scalar array": (np.array(7, dtype=np.int32), ()),
    "array without elements": (np.zeros((2, 0), dtype=np.int32), (2, 0)),
    "read-only": (memoryview(b"12345678"), (1, 2)),
}


@pytest.mark.parametrize("case", BUFFERS)
def test_buffers(case: str) -> None:
    """Every C-contiguous buffer is viewed as its bytes."""
    data, shape = BUFFERS[case]
    assert TensorItem("x", "I32", shape, data).view() == memoryview(data).tobytes()


def test_a_strided_array_is_refused() -> None:
    """An array that is not contiguous has no bytes to pass on: NumPy's error, not wrong bytes."""
    with pytest.raises(TypeError, match="C-contiguous"):
        TensorItem("x", "I32", (2,), np.arange(4, dtype=np.int32)[::2]).view()


def test_items_pass_through() -> None:
    """Sound items come out as they went in, in order."""
    items = [TensorItem("b", "U8", (1,), b"x"), StringItem("a", "text"), TensorItem("c", "F64", (0, 3), b"")]
    assert list(checked(items)) == items


def test_an_item_is_checked_in_its_turn() -> None:
    """Items before a wrong one come out."""
    items = checked([StringItem("a", ""), StringItem("a", "")])
    assert next(items) == StringItem("a", "")
    with pytest.raises(FormatError, match="given twice"):
        next(items)
