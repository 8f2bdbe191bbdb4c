"""NumPy's .npy: a header in Python's notation, then one array.

    offset 0   6 bytes   "\\x93NUMPY"
           6   u8, u8    version: 1.0, 2.0 or 3.0
           8   u16, u32  bytes of the header, little-endian: u16 in version 1, else u32
               header    {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, blanks and a line feed;
                         Latin-1, in version 3 UTF-8
               bytes     the elements, in C order unless fortran_order says else

The header is matched, never evaluated. An array in Fortran order is read as if it lay in C order (`strided.py`). Object
arrays are pickles and are refused, as are types that a checkpoint has no name for: strings, dates, records, complex128,
and `V2`, as which NumPy saves a bfloat16 without saying so.

An array on its own is called "arr_0", as it would be in an .npz.

Source: NumPy's numpy/lib/_format_impl.py and its documentation, "numpy.lib.format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from .checkpoint import Checkpoint, Extent, SourceTensor
from .checks import brief, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .joined import Joiner
from .source import ByteSource, FileSource, read
from .strided import StridedSource, in_c_order

MAGIC = b"\x93NUMPY"
# NumPy's own limit; only records with many fields come near it.
MAX_HEADER_BYTES = 10_000
# NumPy pads headers to 64 bytes; few exceed two of these. An archive of 100,000 arrays is read once for each.
FIRST_BYTES = 256
ALONE = "arr_0"
# Different headers of one archive that are remembered.
MAX_KNOWN = 1024

DTYPES: Mapping[str, str] = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<i2": "I16",
    "<u2": "U16",
    "<i4": "I32",
    "<u4": "U32",
    "<i8": "I64",
    "<u8": "U64",
    "<f2": "F16",
    "<f4": "F32",
    "<f8": "F64",
    "<c8": "C64",
}

# One entry of the header, which has three, and how it ends.
_ENTRY = re.compile(r" *'(descr|fortran_order|shape)' *: *('[^']*'|True|False|\([0-9L, ]*\)) *(, *\}|,|\})")
_RECORD = re.compile(r"'descr' *: *[\[(]")
_SHAPE = re.compile(r"\( *+(?:[0-9]{1,19}L? *+(?:, *+[0-9]{1,19}L? *+)*+(?:, *+)?)?\)")


@dataclass(frozen=True, slots=True)
class Array:
    """What a header says: the `nbytes` of elements begin `start` bytes after the magic, with `strides` in elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    nbytes: int
    in_c_order: bool


class Where(NamedTuple):
    """The file and offset at which an array begins, and the tensor's name, for errors."""

    path: str
    offset: int
    tensor: str

    def broken(self, message: str, expected: str) -> FormatError:
        """The error that the bytes break the format."""
        return FormatError(message, path=self.path, tensor=self.tensor[:80], offset=self.offset, expected=expected)

    def unsupported(self, message: str, expected: str) -> UnsupportedFormat:
        """The error that the array is sound but of a kind that is not read."""
        return UnsupportedFormat(
            message, path=self.path, tensor=self.tensor[:80], offset=self.offset, expected=expected
        )


class Headers:
    """Reads the headers of arrays, and remembers what the first of them said: a model has few, each many times."""

    def __init__(self) -> None:
        self._known: dict[bytes, Array] = {}

    def parse(self, read_head: Callable[[int], bytes], size: int, where: Where) -> Array:
        """The array of `size` bytes with its header, of which `read_head` gives the first so many, if there are.

        FormatError and UnsupportedFormat as the module says.
        """
        head = read_head(FIRST_BYTES)
        if (needed := _needed(head)) > len(head):
            head = read_head(needed)
        head = head[:needed]
        array = self._known.get(head)
        if array is None:
            array = _array(head, where)
            if len(self._known) < MAX_KNOWN:
                self._known[head] = array
        if size - array.start != array.nbytes:
            message = f"{size - array.start} bytes follow the header"
            raise where.broken(message, f"{array.nbytes}, as dtype and shape say")
        return array


def _array(head: bytes, where: Where) -> Array:
    text, start = _header(head, where)
    descr, fortran, shape = _fields(text, where)
    dtype = _dtype(descr, where)
    if fault := shape_fault(shape):
        raise where.broken(fault.message, fault.expected)
    strides = _strides(shape, fortran)
    return Array(dtype, shape, strides, start, prod(shape) * ITEMSIZE[dtype], in_c_order(shape, strides))


class NpyReader:
    """Reads one .npy file."""

    format = "npy"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether the magic opens the file."""
        return head.startswith(MAGIC)

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, of one tensor called "arr_0". FormatError as the module says."""
        where = Where(source.path, 0, ALONE)
        array = Headers().parse(lambda nbytes: bytes(read(source, 0, min(nbytes, source.size))), source.size, where)
        joiner = Joiner(source.path, 1)
        tensor = place(array, Extent(0, array.start, array.nbytes), source, joiner, where)
        return Checkpoint(self.format, (tensor,), (source, *joiner.sources()))


READER = NpyReader()


def place(array: Array, extent: Extent, source: ByteSource, joiner: Joiner, where: Where) -> SourceTensor:
    """The tensor whose bytes are `extent` of `source`; through `joiner` where they do not lie in C order.

    UnsupportedFormat when these are to be read from anything but a file.
    """
    if not array.in_c_order:
        if extent.source or not isinstance(source, FileSource):
            expected = "an array in C order (numpy.ascontiguousarray), or one that is not compressed"
            raise where.unsupported("a compressed array in Fortran order", expected)
        itemsize = ITEMSIZE[array.dtype]
        extent = joiner.add(StridedSource(source, extent.offset, itemsize, array.shape, array.strides), 0, array.nbytes)
    return SourceTensor(where.tensor, array.dtype, array.shape, (extent,) if array.nbytes else ())


def _needed(head: bytes) -> int:
    """Bytes of the header with what stands before it, as far as a header may go."""
    width = 2 if head[6:7] == b"\x01" else 4
    return 8 + width + min(MAX_HEADER_BYTES, int.from_bytes(head[8 : 8 + width], "little"))


def _header(head: bytes, where: Where) -> tuple[str, int]:
    """The header's text, and where it ends."""
    if not head.startswith(MAGIC) or len(head) < 10:
        raise where.broken("is no .npy", "the magic \\x93NUMPY and a version")
    version, width = (head[6], head[7]), 2 if head[6] == 1 else 4
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise where.unsupported(f"is .npy of version {version[0]}.{version[1]}", "version 1.0, 2.0 or 3.0")
    nbytes = int.from_bytes(head[8 : 8 + width], "little")
    if nbytes > MAX_HEADER_BYTES:
        raise where.broken(f"the header claims {nbytes} bytes", f"at most {MAX_HEADER_BYTES}")
    start = 8 + width + nbytes
    if start > len(head):
        raise where.broken(f"the header claims {nbytes} bytes", f"at most {max(0, len(head) - 8 - width)}")
    return head[8 + width : start].decode("latin-1" if version[0] < 3 else "utf-8", "replace"), start


def _fields(text: str, where: Where) -> tuple[str, bool, tuple[int, ...]]:
    """The type, whether in Fortran order, and the shape."""
    if _RECORD.search(text):
        raise where.unsupported("an array of records", "one array for each field")
    found = _entries(text)
    descr, fortran, shape = (found.get(key, "") for key in ("descr", "fortran_order", "shape"))
    if not descr.startswith("'") or fortran not in ("True", "False") or not _SHAPE.fullmatch(shape):
        raise where.broken(f"the header says {brief(text)}", "{'descr': ..., 'fortran_order': ..., 'shape': ...}")
    dims = [dim for dim in re.split("[^0-9]+", shape) if dim]
    return descr, fortran == "True", tuple(map(int, dims))


def _entries(text: str) -> dict[str, str]:
    """What stands between the braces; nothing where that is anything else, or twice there."""
    found: dict[str, str] = {}
    pos = int(text.startswith("{"))
    while pos and (match := _ENTRY.match(text, pos)) and match[1] not in found:
        found[match[1]], pos = match[2], match.end()
        if match[0].endswith("}"):
            return {} if text[pos:].strip(" \n") else found
    return {}


def _dtype(descr: str, where: Where) -> str:
    kind = descr.strip("'")
    if kind in DTYPES:
        return DTYPES[kind]
    known = ", ".join(DTYPES)
    if kind == "|O":
        raise where.unsupported("an array of Python objects, which is a pickle", known)
    if kind.startswith(">"):
        raise where.unsupported(f"big-endian elements ({brief(kind)})", "little-endian ones: save array.astype('<...')")
    if kind[1:] in ("V2", "V1", "f1"):
        raise where.unsupported(f"elements of type {kind}, as NumPy saves bfloat16 and float8 alike", "safetensors")
    raise where.unsupported(f"elements of type {brief(kind)}", known)


def _strides(shape: tuple[int, ...], fortran: bool) -> tuple[int, ...]:
    return tuple(prod(shape[:axis]) if fortran else prod(shape[axis + 1 :]) for axis in range(len(shape)))
