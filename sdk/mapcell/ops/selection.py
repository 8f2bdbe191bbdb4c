"""Picking elements by position, mask and order, and writing copies.

Indices are integer Tensors (TypeError otherwise); negative ones count from the end, one out of range is a RuntimeError.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.tensor import Tensor, wrap
from ..kernels import indexing, selection
from ..kernels import shape as shaping
from ..kernels.promotion import promoted
from ._call import array, call, operand, wrapped

Number = bool | int | float


def gather(input_params: Tensor, input_indices: Tensor, axis: int, batch_dims: int = 0) -> Tensor:
    """The slices at `input_indices` along `axis`, separately for each element of the first `batch_dims` axes."""
    return call(selection.gather, input_params, input_indices, int(axis), batch_dims)


def gather_elements(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j] = input[i][index[i][j]] for dim 1, and so on."""
    return call(selection.gather_elements, input, dim, index)


gather_d = gather_elements


def gather_nd(input_x: Tensor, indices: Tensor) -> Tensor:
    """The elements or slices at the positions in the last axis of `indices`."""
    return call(selection.gather_nd, input_x, indices)


def index_select(input: Tensor, axis: int, index: Tensor) -> Tensor:
    """The slices at the positions of the vector `index` along `axis`."""
    return call(selection.gather, input, index, axis)


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened Tensor at `index`."""
    return call(selection.gather, input.reshape(-1), index, 0)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """The rows of `weight` at the ids `input`. `padding_idx` and `scale_grad_by_freq` concern training only.

    `max_norm` scales down rows whose `norm_type`-norm is larger; unlike in training, `weight` is left alone.
    """
    del padding_idx, scale_grad_by_freq
    rows = selection.lookup(array(weight, "embedding"), array(input, "embedding"))
    if max_norm is not None:
        norms = np.linalg.norm(rows, ord=norm_type, axis=-1, keepdims=True)
        rows = rows * np.minimum(1, max_norm / np.maximum(norms, 1e-7)).astype(rows.dtype)
    return wrap(rows)


def where(condition: Tensor, input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """`input` where `condition` is True, else `other`; all broadcast."""
    picked = operand(input, "where"), operand(other, "where")
    return wrap(selection.where(array(condition, "where"), *picked))


select = where


def masked_fill(input_x: Tensor, mask: Tensor, value: Tensor | Number) -> Tensor:
    """`input_x` with `value` where the Bool `mask` is True."""
    return call(indexing.masked_fill, input_x, mask, value)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the Bool `mask` is True, flat."""
    return call(indexing.masked_select, input, mask)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two axes; the rest is zero."""
    return call(shaping.tril, input, diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two axes; the rest is zero."""
    return call(shaping.triu, input, diagonal)


def topk(
    input: Tensor, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) elements along `dim` (the last axis) in order, and their positions (Int32)."""
    values, where_ = indexing.topk(array(input, "topk"), int(k), -1 if dim is None else dim, largest, sorted)
    return wrap(values), wrap(where_)


def top_k(input_x: Tensor, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The `k` largest elements along the last axis, and their positions (Int32)."""
    return topk(input_x, k, sorted=sorted)


def sort(input_x: Tensor, axis: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """The sorted elements and their former positions (Int32)."""
    values, order = indexing.sort(array(input_x, "sort"), axis, descending)
    return wrap(values), wrap(order)


def msort(input: Tensor) -> Tensor:
    """Sorted along the first axis."""
    return sort(input, 0)[0]


def argsort(input: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """The positions (Int32) that sort `input` along `axis`."""
    return call(indexing.argsort, input, axis, descending)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero, one row each (Int64); or (as_tuple) a Tensor for each axis."""
    found = indexing.nonzero(array(input, "nonzero"))
    return wrapped(tuple(found.T)) if as_tuple else wrap(found)


def argwhere(input: Tensor) -> Tensor:
    """As `nonzero`."""
    return call(indexing.nonzero, input)


def one_hot(
    indices: Tensor, depth: int, on_value: Tensor | Number = 1, off_value: Tensor | Number = 0, axis: int = -1
) -> Tensor:
    """`on_value` at each index along a new `axis` of `depth` elements, `off_value` elsewhere; Int64 for ints.

    TypeError when the two values differ in dtype.
    """
    on, off = (_constant(value) for value in (on_value, off_value))
    if on.dtype != off.dtype:
        raise TypeError(f"one_hot: 'on_value' and 'off_value' differ in dtype, {on.dtype} and {off.dtype}")
    return wrap(indexing.one_hot(array(indices, "one_hot"), int(depth), on, off, on.dtype, axis))


def _constant(value: Tensor | Number) -> np.ndarray[Any, Any]:
    if isinstance(value, float):
        return np.asarray(value, np.float32)
    return np.asarray(operand(value, "one_hot"))


def scatter(input: Tensor, axis: int, index: Tensor, src: Tensor | Number) -> Tensor:
    """A copy with out[i][index[i][j]] = src[i][j] for axis 1, and so on."""
    values = src if isinstance(src, Tensor) else Tensor(np.full(index.shape, src))
    return call(selection.scatter_elements, input, axis, index, values)


def tensor_scatter_elements(
    input_x: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """As `scatter`; `reduction` "add" adds to what is there."""
    return call(selection.scatter_elements, input_x, axis, indices, updates, reduction)


def scatter_nd(indices: Tensor, updates: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape` with `updates` added at the positions in the last axis of `indices`."""
    values = array(updates, "scatter_nd")
    zeros = np.zeros(tuple(shape), values.dtype)
    return wrap(selection.scatter_nd(zeros, array(indices, "scatter_nd"), values, "add"))


def tensor_scatter_update(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with `updates` at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates)


def tensor_scatter_add(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with `updates` added at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "add")


def tensor_scatter_sub(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with `updates` subtracted at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "sub")


def tensor_scatter_mul(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy multiplied by `updates` at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "mul")


def tensor_scatter_div(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy divided by `updates` at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "div")


def tensor_scatter_max(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with the larger of itself and `updates` at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "max")


def tensor_scatter_min(input_x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with the smaller of itself and `updates` at the positions in the last axis of `indices`."""
    return call(selection.scatter_nd, input_x, indices, updates, "min")


def index_add(x: Tensor, indices: Tensor, y: Tensor, axis: int) -> Tensor:
    """A copy with the slices of `y` added at `indices` along `axis`."""
    return call(selection.index_add, x, axis, indices, y)


def index_fill(x: Tensor, axis: int, index: Tensor | int, value: Tensor | Number) -> Tensor:
    """A copy with `value` at the positions `index` along `axis`."""
    places = index if isinstance(index, Tensor) else Tensor(index)
    return call(selection.index_fill, x, axis, places, value)


def unique(input: Tensor) -> tuple[Tensor, Tensor]:
    """The different elements in the order of their first occurrence, and for each element which of them it is."""
    values, inverse = selection.unique(array(input, "unique"))
    return wrap(values), wrap(inverse)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The flattened elements without immediate repetitions; on demand each one's run, and the runs' lengths."""
    values, inverse, counts = selection.unique_consecutive(array(input, "unique_consecutive"))
    wanted = (values, *((inverse,) if return_inverse else ()), *((counts,) if return_counts else ()))
    return wrapped(wanted) if len(wanted) > 1 else wrap(values)


def searchsorted(
    sorted_sequence: Tensor, values: Tensor, *, out_int32: bool = False, right: bool = False, side: str | None = None
) -> Tensor:
    """Where each of `values` would have to be inserted into the sorted last axis. ValueError for an unknown `side`."""
    if side not in (None, "left", "right"):
        raise ValueError(f"searchsorted: 'side' has to be 'left' or 'right', not {side!r}")
    found = call(selection.search_sorted, sorted_sequence, values, right or side == "right")
    return wrap(array(found, "searchsorted").astype(np.int32)) if out_int32 else found


def bucketize(input: Tensor, boundaries: list[float], *, right: bool = False) -> Tensor:
    """For each element which of the buckets between `boundaries` it falls into (Int32)."""
    edges = np.asarray(boundaries, np.float64)
    return wrap(selection.search_sorted(edges, array(input, "bucketize"), right).astype(np.int32))


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number occurs, or the sum of its `weights`; Float32."""
    heavy = None if weights is None else array(weights, "bincount")
    return wrap(np.bincount(array(input, "bincount"), heavy, minlength).astype(np.float32))


def unsorted_segment_sum(input_x: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """out[s] is the sum of the slices whose segment is s."""
    return call(selection.segment_sum, input_x, segment_ids, int(num_segments))


def sequence_mask(lengths: Tensor, maxlen: int | None = None) -> Tensor:
    """out[..., j] says whether j is smaller than lengths[...]."""
    return call(selection.sequence_mask, lengths, maxlen)


def isin(elements: Tensor, test_elements: Tensor) -> Tensor:
    """Whether each element occurs in `test_elements`."""
    a, b = array(elements, "isin"), array(test_elements, "isin")
    dtype = promoted(a.dtype, b.dtype)
    return wrap(np.isin(a.astype(dtype), b.astype(dtype)))
