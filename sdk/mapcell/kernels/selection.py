"""Writing into copies by position, looking up, and what finds elements.

`indexing` holds what reads by position. Positions outside raise RuntimeError, as MindSpore's kernels do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import indexing
from .promotion import FLOAT32, INT64, Array, Operand, as_array, cast, common_dtype, is_integer, settled


def _within(who: str, index: Array, size: int) -> None:
    if not is_integer(index.dtype):
        raise TypeError(f"{who}: the indices have to be integers, not {index.dtype}")
    if index.size and (int(index.max()) >= size or int(index.min()) < -size):
        raise RuntimeError(
            f"{who}: the indices have to be within [{-size}, {size}), but go from {index.min()} to {index.max()}"
        )


def lookup(table: Array, index: Array) -> Array:
    """The rows of `table` at `index`, negative ones from the end. RuntimeError out of range, TypeError for floats."""
    _within("embedding", index, table.shape[0])
    return settled(np.take(table, index, axis=0))


def gather(a: Array, index: Array, axis: int, batch_dims: int = 0) -> Array:
    """The slices of `a` at `index` along `axis`. RuntimeError for an index out of range, TypeError for floats."""
    _within("gather", index, a.shape[axis])
    return indexing.gather(a, index, axis, batch_dims)


def gather_elements(a: Array, axis: int, index: Array) -> Array:
    """out[i][j] = a[i][index[i][j]] for axis 1. RuntimeError for an index out of range, TypeError for floats."""
    _within("gather_elements", index, a.shape[axis])
    return indexing.gather_elements(a, axis, index)


def gather_nd(a: Array, index: Array) -> Array:
    """The elements or slices at the positions in the last axis of `index`. RuntimeError out of range."""
    for i in range(index.shape[-1]):
        _within("gather_nd", index[..., i], a.shape[i])
    return indexing.gather_nd(a, index)


def where(condition: Array, a: Operand, b: Operand) -> Array:
    """`a` where `condition` is True, else `b`, in their promoted type; Python floats count as Float32."""
    dtype = common_dtype(a, b)
    if dtype == np.float64 and not any(isinstance(v, np.ndarray) for v in (a, b)):
        dtype = FLOAT32
    return indexing.where(condition, a, b, dtype)


def scatter_elements(a: Array, axis: int, index: Array, values: Array, reduction: str = "none") -> Array:
    """A copy of `a` with out[i][index[i][j]] = values[i][j] for axis 1; "add" and others combine instead."""
    _within("scatter", index, a.shape[axis])
    places: list[Any] = list(np.indices(index.shape, sparse=True))
    places[axis] = index
    return _written(a, tuple(places), values, reduction)


def scatter_nd(a: Array, index: Array, values: Array, reduction: str = "none") -> Array:
    """A copy of `a` with `values` at the positions in the last axis of `index`; "add" and others combine instead."""
    for i in range(index.shape[-1]):
        _within("scatter_nd", index[..., i], a.shape[i])
    return _written(a, tuple(np.moveaxis(index, -1, 0)), values, reduction)


_COMBINE = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _written(a: Array, places: tuple[Any, ...], values: Array, reduction: str) -> Array:
    out, new = a.copy(), cast(values, a.dtype)
    if reduction == "none":
        out[places] = new
        return out
    if reduction not in _COMBINE:
        raise ValueError(f"scatter: 'reduction' has to be one of none, {', '.join(_COMBINE)}, not {reduction!r}")
    _COMBINE[reduction].at(out, places, new)
    return out


def index_fill(a: Array, axis: int, index: Array, value: Operand) -> Array:
    """A copy of `a` with `value` at the positions `index` along `axis`."""
    _within("index_fill", index, a.shape[axis])
    out = a.copy()
    np.moveaxis(out, axis, 0)[index] = as_array(value, a.dtype)
    return out


def index_add(a: Array, axis: int, index: Array, values: Array) -> Array:
    """A copy of `a` with the slices of `values` added at the positions `index` along `axis`."""
    _within("index_add", index, a.shape[axis])
    out = a.copy()
    np.add.at(np.moveaxis(out, axis, 0), index, np.moveaxis(cast(values, a.dtype), axis, 0))
    return out


def unique(a: Array) -> tuple[Array, Array]:
    """The different elements in the order in which they first occur, and for each element which of them it is."""
    values, first, inverse = np.unique(a, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    dtype = a.dtype if a.dtype == np.int64 else np.dtype(np.int32)
    return values[order], place[inverse].reshape(a.shape).astype(dtype)


def unique_consecutive(a: Array) -> tuple[Array, Array, Array]:
    """The flattened elements without immediate repetitions, which run each element is in, and the runs' lengths."""
    flat = a.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.zeros(0, INT64)
    lengths = np.diff(np.append(starts, flat.size))
    return flat[starts], np.repeat(np.arange(starts.size), lengths).reshape(a.shape), lengths


def search_sorted(sorted_: Array, values: Array, right: bool = False) -> Array:
    """Where each of `values` would have to be inserted along the last axis of `sorted_` to keep it sorted (Int64)."""
    if sorted_.ndim == 1:
        return settled(np.searchsorted(sorted_, values, "right" if right else "left")).astype(INT64)
    before = sorted_[..., None, :] <= values[..., None] if right else sorted_[..., None, :] < values[..., None]
    return settled(np.count_nonzero(before, axis=-1)).astype(INT64)


def segment_sum(a: Array, segment: Array, segments: int) -> Array:
    """out[s] is the sum of the slices of `a` whose `segment` is s; negative segments are left out."""
    out = np.zeros((segments, *a.shape[segment.ndim :]), a.dtype)
    kept = segment >= 0
    np.add.at(out, segment[kept], a[kept])
    return out


def sequence_mask(lengths: Array, longest: int | None = None) -> Array:
    """out[..., j] says whether j is smaller than lengths[...]."""
    size = int(lengths.max()) if longest is None else longest
    return settled(np.arange(size) < lengths[..., None])
