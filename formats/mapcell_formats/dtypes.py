"""Element types, spelled as safetensors spells them (``F32``, ``BF16`` ...), and what they are in NumPy.

Source: the safetensors format, https://huggingface.co/docs/safetensors, and its Rust enum ``Dtype``.
Sub-byte types (F4, F6) have no NumPy array and are refused by the readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# The order is the wire's: the manifest stores the position. Append, never reorder.
CODES: tuple[str, ...] = (
    "BOOL",
    "U8",
    "I8",
    "I16",
    "U16",
    "I32",
    "U32",
    "I64",
    "U64",
    "F16",
    "BF16",
    "F32",
    "F64",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "C64",
)
POSITION: Mapping[str, int] = {code: i for i, code in enumerate(CODES)}

ITEMSIZE: Mapping[str, int] = dict(zip(CODES, (1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 1, 1, 1, 8), strict=True))

FLOATING: frozenset[str] = frozenset(c for c in CODES if c.startswith(("F", "BF")))

_NUMPY_NAMES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
_ML_NAMES: Mapping[str, str] = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
# What a person may write for a dtype: the code itself or NumPy's name, in any case.
_ALIASES: Mapping[str, str] = {
    **{code.lower(): code for code in CODES},
    **{name: code for code, name in _NUMPY_NAMES.items()},
    **{name: code for code, name in _ML_NAMES.items()},
    "float8_e4m3": "F8_E4M3",
    "half": "F16",
    "float": "F32",
    "double": "F64",
}


@cache
def numpy_dtype(code: str) -> np.dtype[Any]:
    """The NumPy dtype of `code`; BF16 and the F8 types come from ml_dtypes. KeyError for an unknown code."""
    import numpy as np

    if code in _NUMPY_NAMES:
        return np.dtype(_NUMPY_NAMES[code])
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_NAMES[code]))
    return dtype


@cache
def code_of(dtype: np.dtype[Any]) -> str:
    """The code of a NumPy dtype. KeyError when checkpoints cannot hold it."""
    return _ALIASES[dtype.name]


def parse_dtype(text: str) -> str:
    """The code that a person means by `text` ("float32", "F32", "bf16"). KeyError when there is none."""
    return _ALIASES[text.strip().lower()]
