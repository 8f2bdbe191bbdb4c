"""Writes safetensors; `safetensors` has the byte layout.

Not through the library's `serialize`: it wants the bytes of all tensors at once, and it aligns nothing beyond 8 bytes.
Nor can anything be padded between tensors, for the library refuses a file with a gap, and a tensor that only fills one
would turn up in everybody's list of names. What is free is the order. Tensors are sorted by the largest power of two
that divides their size: then each starts at a multiple of its own, hence of its item size, and all tensors whose size
is a multiple of `align` (in published models nearly all) start at multiples of `align`. The header is padded with
blanks so that the first one does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from .errors import FormatError, UnsupportedFormat
from .items import DEFAULT_ALIGN, Item, TensorItem, check_align, checked
from .limits import MAX_HEADER_BYTES
from .safetensors import LENGTH_BYTES, METADATA_KEY

if TYPE_CHECKING:
    from typing_extensions import Buffer


def encode_safetensors(
    items: Iterable[Item], metadata: Mapping[str, str] | None = None, *, align: int = DEFAULT_ALIGN
) -> Iterator[Buffer]:
    """The file as chunks in order. Tensors' bytes are passed on as views of what was given, never copied.

    FormatError or UnsupportedFormat (a StringItem) name the tensor at fault.
    """
    check_align(align)
    # The largest item size, as the library does: with less a tensor could not be mapped as it lies.
    align = max(align, 8)
    tensors = sorted(map(_only_tensor, checked(items)), key=lambda item: -_power_of_two(item.nbytes, align))
    yield _header(tensors, metadata or {}, align)
    for item in tensors:
        yield item.view()


def _only_tensor(item: Item) -> TensorItem:
    if not isinstance(item, TensorItem):
        raise UnsupportedFormat("safetensors holds no strings", tensor=item.name, expected="them as metadata")
    if item.name == METADATA_KEY:
        raise FormatError("the name means metadata", tensor=item.name, expected="another name")
    return item


def _power_of_two(nbytes: int, limit: int) -> int:
    """The largest power of two up to `limit` that divides `nbytes`."""
    return min(nbytes & -nbytes, limit) if nbytes else limit


def _header(tensors: Iterable[TensorItem], metadata: Mapping[str, str], align: int) -> bytes:
    entries: dict[str, object] = {METADATA_KEY: dict(metadata)} if metadata else {}
    position = 0
    for item in tensors:
        end = position + item.nbytes
        entries[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [position, end]}
        position = end
    text = _json(entries)
    text += b" " * (-(LENGTH_BYTES + len(text)) % align)
    if len(text) > MAX_HEADER_BYTES:
        raise FormatError(f"a header of {len(text)} bytes", expected=f"at most {MAX_HEADER_BYTES}")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _json(entries: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(entries, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as exc:
        raise FormatError("half a surrogate pair in the metadata", expected="text in UTF-8") from exc
