"""DLPack capsules that NumPy takes, and that hold their memory exactly as long as somebody may look at it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from mapcell.cuda.dlpack import DTYPES, capsule
from mapcell.cuda.driver import DLPACK_CPU
from mapcell_formats.dtypes import CODES, numpy_dtype


class Owner:
    """What keeps memory alive."""


class Exporter:
    """As NumPy sees a foreign tensor."""

    def __init__(self, array: np.ndarray[Any, Any], code: str, versioned: bool) -> None:
        self.array, self.code, self.versioned = array, code, versioned
        self.owner: Owner | None = Owner()

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK_CPU, 0

    def __dlpack__(self, **_: object) -> object:
        return capsule(
            self.array.ctypes.data, self.array.shape, self.code, (DLPACK_CPU, 0), self.owner, versioned=self.versioned
        )


@pytest.mark.parametrize("versioned", [False, True], ids=["old", "versioned"])
@pytest.mark.parametrize("code", [c for c in CODES if c not in ("BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0")])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_numpy_takes_it(shape: tuple[int, ...], code: str, versioned: bool) -> None:
    """Dtype, shape and elements, at the very address."""
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(numpy_dtype(code))
    taken = np.from_dlpack(Exporter(array, code, versioned))
    assert (taken.dtype, taken.shape) == (array.dtype, shape)
    assert not array.size or taken.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(taken, array)


@pytest.mark.parametrize("versioned", [False, True], ids=["old", "versioned"])
@pytest.mark.parametrize("used", [False, True], ids=["unclaimed", "claimed"])
def test_owner_lives_as_long_as_it_is_looked_at(used: bool, versioned: bool) -> None:
    """The last array lets the owner go, and so does a capsule that nobody took."""
    exporter = Exporter(np.arange(4.0), "F64", versioned)
    owner = weakref.ref(exporter.owner)
    held: Any = np.from_dlpack(exporter)[1:] if used else exporter.__dlpack__()
    exporter.owner = None
    gc.collect()
    assert owner() is not None
    del held
    gc.collect()
    assert owner() is None


def test_every_dtype_has_a_code() -> None:
    """What checkpoints hold can all be exported; anything else is a BufferError."""
    assert DTYPES.keys() == set(CODES)
    with pytest.raises(BufferError, match="I4"):
        capsule(0, (), "I4", (DLPACK_CPU, 0), None, versioned=True)
