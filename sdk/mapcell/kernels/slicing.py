"""Views of parts of an array: slices by position and size, slices with masks, diagonals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .promotion import Array, settled


@dataclass(frozen=True, slots=True)
class Masks:
    """The bit masks of `strided`: bit i says that entry i of begin, end and strides means something special."""

    begin: int = 0
    end: int = 0
    ellipsis: int = 0
    new_axis: int = 0
    shrink_axis: int = 0


def narrow(a: Array, axis: int, start: int, length: int) -> Array:
    """`length` elements from `start` on along `axis`. ValueError when there are fewer."""
    size = a.shape[axis]
    if not 0 <= start <= size or not 0 <= length <= size - start:
        raise ValueError(f"narrow: {length} elements from {start} on are not within the {size} of axis {axis}")
    index: list[Any] = [slice(None)] * a.ndim
    index[axis] = slice(start, start + length)
    return settled(a[tuple(index)])


def begin_size(a: Array, begin: tuple[int, ...], size: tuple[int, ...]) -> Array:
    """size[i] elements (-1: all that are left) from begin[i] on along each axis. ValueError out of range."""
    if len(begin) != a.ndim or len(size) != a.ndim:
        raise ValueError(f"slice: 'begin' and 'size' need one entry for each axis of {a.shape}")
    spans = [n - b if s == -1 else s for n, b, s in zip(a.shape, begin, size, strict=True)]
    if any(b < 0 or s < 0 or b + s > n for n, b, s in zip(a.shape, begin, spans, strict=True)):
        raise ValueError(f"slice: begin {begin} and size {size} reach outside of {a.shape}")
    return settled(a[tuple(slice(b, b + s) for b, s in zip(begin, spans, strict=True))])


def strided(
    a: Array, begin: tuple[int, ...], end: tuple[int, ...], strides: tuple[int, ...], masks: Masks | None = None
) -> Array:
    """a[begin:end:strides] of the first axes. ValueError when the three differ in length or a stride is 0."""
    if not len(begin) == len(end) == len(strides) or 0 in strides:
        raise ValueError(f"strided_slice: {begin}, {end} and {strides} have to be equally long, no stride 0")
    masks = masks or Masks()
    index = tuple(_entry(i, begin[i], end[i], strides[i], masks) for i in range(len(begin)))
    return settled(a[index])


def _entry(i: int, begin: int, end: int, stride: int, masks: Masks) -> Any:
    bit = 1 << i
    if masks.ellipsis & bit:
        return ...
    if masks.new_axis & bit:
        return None
    if masks.shrink_axis & bit:
        return begin
    return slice(None if masks.begin & bit else begin, None if masks.end & bit else end, stride)


def diag_of_all(a: Array) -> Array:
    """Zeros of shape (*a.shape, *a.shape) with a[i] at [i, i]."""
    out = np.zeros((a.size, a.size), a.dtype)
    np.fill_diagonal(out, a.reshape(-1))
    return out.reshape(*a.shape, *a.shape)


def diag_embed(a: Array, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Array:
    """Matrices over the axes `axis1` and `axis2` of the result with the last axis of `a` on a diagonal."""
    n = a.shape[-1] + abs(offset)
    out = np.zeros((*a.shape[:-1], n, n), a.dtype)
    i = np.arange(a.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = a
    return np.moveaxis(out, (-2, -1), (axis1, axis2))
