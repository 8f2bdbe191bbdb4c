"""Element types: one code each, whatever way it is spelled."""

from __future__ import annotations

import numpy as np
import pytest

from mapcell_formats.dtypes import CODES, FLOATING, ITEMSIZE, POSITION, code_of, numpy_dtype, parse_dtype

# Stored in manifests: appended to, never reordered.
ORDER = "BOOL U8 I8 I16 U16 I32 U32 I64 U64 F16 BF16 F32 F64 F8_E4M3 F8_E5M2 F8_E8M0 C64"


@pytest.mark.parametrize("code", CODES)
def test_numpy_and_back(code: str) -> None:
    """Every code has a NumPy dtype of its size, which leads back to it."""
    dtype = numpy_dtype(code)
    assert dtype.itemsize == ITEMSIZE[code]
    assert code_of(dtype) == parse_dtype(code) == parse_dtype(dtype.name) == code


def test_positions_are_fixed() -> None:
    """What old manifests stored still means the same."""
    assert " ".join(CODES).startswith(ORDER)
    assert [POSITION[c] for c in ORDER.split()] == list(range(17))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("float32", "F32"),
        (" F32 ", "F32"),
        ("f32", "F32"),
        ("Float", "F32"),
        ("half", "F16"),
        ("double", "F64"),
        ("bfloat16", "BF16"),
        ("bf16", "BF16"),
        ("float8_e4m3fn", "F8_E4M3"),
        ("float8_e4m3", "F8_E4M3"),
        ("bool", "BOOL"),
        ("complex64", "C64"),
    ],
)
def test_spellings(text: str, code: str) -> None:
    """What people write for a dtype."""
    assert parse_dtype(text) == code


@pytest.mark.parametrize("text", ["", "float31", "F4", "complex128", "object", "F32\0"])
def test_unknown(text: str) -> None:
    """What is no dtype of a checkpoint brings KeyError."""
    with pytest.raises(KeyError):
        parse_dtype(text)


@pytest.mark.parametrize(
    "dtype", [np.dtype("O"), np.dtype("S3"), np.dtype("complex128"), np.dtype([("a", "i4")])], ids=str
)
def test_arrays_that_checkpoints_cannot_hold(dtype: np.dtype[np.generic]) -> None:
    """A NumPy dtype without a code brings KeyError."""
    with pytest.raises(KeyError):
        code_of(dtype)


def test_floating() -> None:
    """Those that a cast changes; complex numbers are not among them."""
    assert {"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2", "F8_E8M0"} == FLOATING
