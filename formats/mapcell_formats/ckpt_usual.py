"""A record of a .ckpt as MindSpore and mapcell write it, recognised as a whole; `mindspore_ckpt` has the byte layout.

    0A LENGTH  0A LENGTH tag  12 LENGTH (08 dim)... 12 LENGTH type  [7A LENGTH padding]  1A LENGTH content

What looks otherwise, a dim of 0 that may mean a scalar, and what is wrong in any way, is left to the walk from field to
field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from .checkpoint import Extent, SourceTensor
from .checks import shape_fault
from .dtypes import ITEMSIZE

# What has to be at hand: a name of 255 bytes, a tensor's few small fields, and padding to 256 bytes.
LOOK_AHEAD = 1024
MAX_KNOWN = 4096

_NUMBER = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_HEAD = re.compile(rb"\n(" + _NUMBER + rb")\n([\x01-\x7f]|[\x80-\xff]\x01)")
_BODY = re.compile(rb"\x12(" + _NUMBER + rb")((?:\x08" + _NUMBER + rb")*+\x12([\x01-\x7f]))")
_DIM = re.compile(rb"\x08(" + _NUMBER + rb")")
_PADDING = re.compile(rb"z(" + _NUMBER + rb")")
_CONTENT = re.compile(rb"\x1a(" + _NUMBER + rb")")


class _Kind(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Record(NamedTuple):
    """A tensor whose record ends at `stop`."""

    tensor: SourceTensor
    stop: int


class Usual:
    """Reads usual records; `dtypes` maps MindSpore's names to those of checkpoints, and no dim is above `max_dim`."""

    def __init__(self, dtypes: Mapping[str, str], max_dim: int) -> None:
        self._dtypes = dtypes
        self._max_dim = max_dim
        # By their bytes: a model has few dims and types, each many times.
        self._known: dict[bytes, _Kind | None] = {}

    def record(self, window: bytes, base: int, at: int, end: int) -> Record | None:
        """The record at byte `at` of a file whose records end at `end`; `window` are its bytes from `base` on."""
        head = _HEAD.match(window, at - base)
        if head is None:
            return None
        name_at = head.end()
        name_end = name_at + _number(head[2])
        body = _BODY.match(window, name_end)
        if body is None:
            return None
        type_end = body.end() + body[3][0]
        kind = self._kind(window[body.start(2) : type_end], len(body[2]))
        content = _CONTENT.match(window, _after_padding(window, type_end))
        if kind is None or content is None:
            return None
        start, stop = base + content.end(), base + head.end(1) + _number(head[1])
        nested = base + body.end(1) + _number(body[1])
        fits = start + _number(content[1]) == start + kind.nbytes == nested == stop <= end
        raw = window[name_at:name_end]
        if not fits or not raw.isascii() or not (name := raw.decode("ascii")).isprintable():
            return None
        extents = (Extent(0, start, kind.nbytes),) if kind.nbytes else ()
        return Record(SourceTensor(name, kind.dtype, kind.shape, extents), stop)

    def _kind(self, raw: bytes, type_at: int) -> _Kind | None:
        if raw not in self._known:
            if len(self._known) == MAX_KNOWN:
                return None
            self._known[raw] = self._learn(raw[: type_at - 2], raw[type_at:])
        return self._known[raw]

    def _learn(self, dims: bytes, type_name: bytes) -> _Kind | None:
        shape = tuple(_number(raw) for raw in _DIM.findall(dims))
        dtype = self._dtypes.get(type_name.decode("latin-1"))
        if dtype is None or shape == (0,) or shape_fault(shape, self._max_dim):
            return None
        return _Kind(dtype, shape, prod(shape) * ITEMSIZE[dtype])


def _after_padding(window: bytes, at: int) -> int:
    padding = _PADDING.match(window, at)
    return at if padding is None else padding.end() + _number(padding[1])


def _number(raw: bytes) -> int:
    value = raw[0] & 0x7F
    for i in range(1, len(raw)):
        value |= (raw[i] & 0x7F) << 7 * i
    return value
