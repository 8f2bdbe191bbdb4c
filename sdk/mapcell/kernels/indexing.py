"""Picking elements by position and by mask, sorting, and writing in place.

Indices are what NumPy takes: ints, slices, None, Ellipsis, integer and bool arrays, lists. IndexError out of range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .promotion import INT64, Array, DType, Operand, as_array, cast, compute_dtype, is_integer, settled

INT32 = np.dtype("int32")


def get(a: Array, index: Any) -> Array:
    """The elements at `index`: a view where NumPy gives one."""
    return settled(a[index])


def put(a: Array, index: Any, value: Operand) -> None:
    """Writes `value`, cast to the type of `a`, at `index`. ValueError when `a` is read-only."""
    a[index] = as_array(value, a.dtype)


def _positions(index: Array, what: str) -> Array:
    if not is_integer(index.dtype):
        raise TypeError(f"{what}: the index has to be an integer tensor, not {index.dtype}")
    return index


def take(a: Array, index: Array, axis: int | None = 0) -> Array:
    """The slices at positions `index` along `axis`; of the flattened array when None. Negatives count from the end."""
    return settled(np.take(a, _positions(index, "take"), axis=axis))


def gather(a: Array, index: Array, axis: int, batch_dims: int = 0) -> Array:
    """The slices of `a` at `index` along `axis`, separately for each element of the first `batch_dims` axes."""
    if batch_dims == 0:
        return take(a, index, axis)
    axis %= a.ndim
    flat, picked = a.reshape(-1, *a.shape[batch_dims:]), index.reshape(-1, *index.shape[batch_dims:])
    rows = np.arange(flat.shape[0]).reshape(-1, *(1,) * (picked.ndim - 1))
    moved = np.moveaxis(flat, axis - batch_dims + 1, 1)
    out = moved[rows, _positions(picked, "gather")]
    before = axis - batch_dims
    out = np.moveaxis(out, range(1, picked.ndim), range(1 + before, picked.ndim + before))
    return out.reshape(*index.shape[:batch_dims], *out.shape[1:])


def gather_elements(a: Array, axis: int, index: Array) -> Array:
    """out[i][j] = a[i][index[i][j]] for axis 1, and so on; `index` has the rank of `a`."""
    inside = tuple(slice(0, n) for n in index.shape)
    cut = tuple(slice(None) if i == axis % a.ndim else inside[i] for i in range(a.ndim))
    return np.take_along_axis(a[cut], _positions(index, "gather_elements"), axis=axis)


def gather_nd(a: Array, index: Array) -> Array:
    """The elements or slices at the positions in the last axis of `index`."""
    return settled(a[tuple(np.moveaxis(_positions(index, "gather_nd"), -1, 0))])


def index_select(a: Array, axis: int, index: Array) -> Array:
    """The slices at the positions of the 1-D `index` along `axis`."""
    return take(a, index, axis)


def masked_fill(a: Array, mask: Array, value: Operand) -> Array:
    """A copy of `a` with `value` where `mask` is True; both broadcast. TypeError unless the mask is bool."""
    if mask.dtype.kind != "b":
        raise TypeError(f"masked_fill: 'mask' has to be a bool tensor, not {mask.dtype}")
    return settled(np.where(mask, as_array(value, a.dtype), a))


def masked_select(a: Array, mask: Array) -> Array:
    """The elements of `a` where `mask` is True, flat; both broadcast."""
    if mask.dtype.kind != "b":
        raise TypeError(f"masked_select: 'mask' has to be a bool tensor, not {mask.dtype}")
    both = np.broadcast_shapes(a.shape, mask.shape)
    return settled(np.broadcast_to(a, both)[np.broadcast_to(mask, both)])


def nonzero(a: Array) -> Array:
    """The positions of the elements that are not zero, one row each, Int64."""
    return np.argwhere(a).astype(INT64, copy=False)


def _ranked(a: Array, axis: int, descending: bool) -> Array:
    keys = cast(a, compute_dtype(a.dtype))
    if not descending:
        return np.argsort(keys, axis=axis, kind="stable")
    # Reversing twice keeps equal elements in their order.
    return settled(a.shape[axis] - 1 - np.flip(np.argsort(np.flip(keys, axis), axis=axis, kind="stable"), axis))


def argsort(a: Array, axis: int = -1, descending: bool = False, dtype: DType = INT32) -> Array:
    """The positions that sort `a` along `axis`; equal elements keep their order."""
    if a.ndim == 0:
        return np.zeros((), dtype)
    return _ranked(a, axis, descending).astype(dtype, copy=False)


def sort(a: Array, axis: int = -1, descending: bool = False) -> tuple[Array, Array]:
    """The sorted elements and their former positions (Int32)."""
    order = argsort(a, axis, descending)
    return (a, order) if a.ndim == 0 else (np.take_along_axis(a, order, axis), order)


def topk(a: Array, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> tuple[Array, Array]:
    """The `k` largest (or smallest) elements along `axis` in order, and their positions (Int32)."""
    del ordered  # an unordered answer may be in any order, so in this one too
    if not 0 <= k <= a.shape[axis]:
        raise ValueError(f"topk: 'k' has to be within [0, {a.shape[axis]}], but it is {k}")
    order = np.take(argsort(a, axis, descending=largest), np.arange(k), axis=axis)
    return np.take_along_axis(a, order, axis), order


def where(condition: Array, a: Operand, b: Operand, dtype: DType) -> Array:
    """`a` where `condition` is True, else `b`, in `dtype`."""
    return np.where(cast(condition, np.dtype(bool)), as_array(a, dtype), as_array(b, dtype))


def one_hot(index: Array, depth: int, on: Operand, off: Operand, dtype: DType, axis: int = -1) -> Array:
    """`on` at each position in `index` along a new axis of `depth` elements, `off` elsewhere."""
    hot = np.expand_dims(_positions(index, "one_hot"), axis) == np.arange(depth).reshape(
        (-1,) + (1,) * (index.ndim - axis % (index.ndim + 1))
    )
    return np.where(hot, as_array(on, dtype), as_array(off, dtype))
