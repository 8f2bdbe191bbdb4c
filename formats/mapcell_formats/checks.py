"""Rules about names and sizes that hold in every checkpoint format.

Each function answers with what is wrong, or None: where it is wrong, only the reader knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .limits import MAX_NAME_BYTES, MAX_RANK

# Times the largest item size it stays within int64. NumPy refuses more even in a shape that has a 0 in it.
MAX_ELEMENTS = 1 << 59


class Fault(NamedTuple):
    """What is wrong, and what was expected instead: the two halves of a FormatError."""

    message: str
    expected: str


def name_fault(name: str) -> Fault | None:
    """A name has at most MAX_NAME_BYTES in UTF-8 and no NUL, at which every C interface would cut it."""
    if name.isascii() and name.isprintable() and len(name) <= MAX_NAME_BYTES:
        return None
    try:
        nbytes = len(name.encode())
    except UnicodeEncodeError:
        return Fault("the name holds half a surrogate pair", "a name in UTF-8")
    if nbytes > MAX_NAME_BYTES:
        return Fault(f"a name of {nbytes} bytes", f"at most {MAX_NAME_BYTES}")
    return Fault("the name has a NUL in it", "text") if "\0" in name else None


def shape_fault(shape: Sequence[object], largest: int = MAX_ELEMENTS) -> Fault | None:
    """A shape is at most MAX_RANK integers from 0 to `largest`; those but 0 multiply to at most MAX_ELEMENTS."""
    if len(shape) > MAX_RANK:
        return Fault(f"{len(shape)} dimensions", f"at most {MAX_RANK}")
    elements = 1
    for dim in shape:
        if type(dim) is not int or not 0 <= dim <= largest:
            return Fault(f"{brief(dim)} is no dimension", f"an integer from 0 to {largest}")
        elements *= dim or 1
    return Fault(f"shape {brief(shape)}", f"at most {MAX_ELEMENTS} elements") if elements > MAX_ELEMENTS else None


def brief(value: object) -> str:
    """`value` for an error message: what a file claims may be of any length."""
    # Python refuses to print an integer of more than 4300 digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
