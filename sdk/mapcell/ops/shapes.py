"""Views and rearrangements. What can share its input's elements does.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.dtype import Type
from ..common.tensor import Tensor, wrap
from ..kernels import shape as kernel
from ..kernels import slicing
from ..kernels.promotion import settled
from ._call import array, arrays, call, wrapped

Tensors = tuple[Tensor, ...] | list[Tensor]


def ints(value: object, who: str) -> tuple[int, ...]:
    """A shape or a permutation: a tuple or list of ints, or an integer Tensor. TypeError for anything else."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if not isinstance(value, tuple | list):
        raise TypeError(f"{who}: expected a tuple or list of ints, not {type(value).__name__}")
    return kernel.as_shape([int(n) if isinstance(n, Tensor) else n for n in value])


def reshape(input: Tensor, shape: Any) -> Tensor:
    """`input` in another `shape`; one -1 is filled in. ValueError when it does not fit."""
    return call(kernel.reshape, input, ints(shape, "reshape"))


def transpose(input: Tensor, dims: Any) -> Tensor:
    """The axes in the order of `dims`, which has to name each once. ValueError otherwise."""
    return call(kernel.transpose, input, ints(dims, "transpose"))


def permute(input: Tensor, *axis: Any) -> Tensor:
    """As `transpose`; the axes may also be given one by one."""
    return transpose(input, axis[0] if len(axis) == 1 and not isinstance(axis[0], int) else axis)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two axes exchanged."""
    return call(kernel.swapaxes, input, axis0, axis1)


swapdims = swapaxes


def moveaxis(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes `source` moved to the places `destination`."""
    return call(kernel.moveaxis, x, source, destination)


movedim = moveaxis


def t(input: Tensor) -> Tensor:
    """A matrix transposed; a vector as it is. ValueError for more axes."""
    if input.ndim > 2:
        raise ValueError(f"t: the input has to have at most 2 axes, but its shape is {input.shape}")
    return call(np.transpose, input)


def expand_dims(input_x: Tensor, axis: int) -> Tensor:
    """A new axis of size 1 at `axis`. ValueError out of range."""
    return call(kernel.expand_dims, input_x, axis)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """As `expand_dims`."""
    return expand_dims(input, dim)


def squeeze(input: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """Without the axes of size 1, or without those of `axis`. ValueError when one of these is larger."""
    return call(kernel.squeeze, input, axis)


def flatten(input: Tensor, order: str = "C", *, start_dim: int = 1, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim` joined, row by row or (order "F") column by column; a vector as it is."""
    x = array(input, "flatten")
    if order not in ("C", "F"):
        raise ValueError(f"flatten: 'order' has to be 'C' or 'F', not {order!r}")
    if x.ndim < 2:
        return wrap(x.reshape(-1))
    return wrap(kernel.flatten(x.transpose() if order == "F" else x, start_dim, end_dim))


def ravel(input: Tensor) -> Tensor:
    """All axes joined."""
    return call(kernel.reshape, input, (-1,))


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` in the shape of `other`."""
    return reshape(input, other.shape)


def broadcast_to(input: Tensor, shape: Any) -> Tensor:
    """`input` repeated to `shape`, where -1 keeps an axis. ValueError when it does not fit."""
    return call(kernel.broadcast_to, input, ints(shape, "broadcast_to"))


def expand(input_x: Tensor, size: Any) -> Tensor:
    """As `broadcast_to`."""
    return broadcast_to(input_x, size)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` repeated to the shape of `other`."""
    return broadcast_to(input, other.shape)


def tile(input: Tensor, dims: Any) -> Tensor:
    """`input` repeated dims[i] times along each axis."""
    return call(kernel.tile, input, ints(dims, "tile"))


def repeat_interleave(input: Tensor, repeats: int | Sequence[int] | Tensor, axis: int | None = None) -> Tensor:
    """Each element along `axis` (of the flattened Tensor when None) repeated."""
    times = repeats if isinstance(repeats, int) else ints(repeats, "repeat_interleave")
    return call(kernel.repeat, input, times, axis)


def repeat_elements(x: Tensor, rep: int, axis: int = 0) -> Tensor:
    """Each element along `axis` repeated `rep` times."""
    return repeat_interleave(x, rep, axis)


def concat(tensors: Tensors, axis: int = 0) -> Tensor:
    """The Tensors one after another along `axis`, in their promoted dtype. ValueError when their shapes differ."""
    return wrap(kernel.concat(arrays(tensors, "concat"), axis))


cat = concat


def stack(tensors: Tensors, axis: int = 0) -> Tensor:
    """The Tensors side by side along a new `axis`. ValueError when their shapes differ."""
    return wrap(kernel.stack(arrays(tensors, "stack"), axis))


def hstack(tensors: Tensors) -> Tensor:
    """The Tensors side by side."""
    return wrap(np.hstack(arrays(tensors, "hstack")))


def vstack(inputs: Tensors) -> Tensor:
    """The Tensors one below another."""
    return wrap(np.vstack(arrays(inputs, "vstack")))


row_stack = vstack


def dstack(tensors: Tensors) -> Tensor:
    """The Tensors one behind another, along the third axis."""
    return wrap(np.dstack(arrays(tensors, "dstack")))


def column_stack(tensors: Tensors) -> Tensor:
    """The Tensors side by side, vectors as columns."""
    return wrap(np.column_stack(arrays(tensors, "column_stack")))


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Pieces of a given size (the last may be shorter), or of the sizes listed, along `axis`."""
    return wrapped(kernel.split(array(tensor, "split"), split_size_or_sections, axis))


def chunk(input: Tensor, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` equal pieces along `axis`, the last one perhaps shorter."""
    return wrapped(kernel.chunk(array(input, "chunk"), chunks, axis))


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """So many pieces, as equal as possible, or pieces cut at the positions listed."""
    return wrapped(np.array_split(array(input, "tensor_split"), indices_or_sections, axis))


def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the second axis (the first of a vector)."""
    return tensor_split(input, indices_or_sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the first axis."""
    return tensor_split(input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the third axis."""
    return tensor_split(input, indices_or_sections, 2)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without it."""
    return wrapped(kernel.unbind(array(input, "unbind"), dim))


def unstack(input_x: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    """As `unbind`."""
    return unbind(input_x, axis)


def narrow(input: Tensor, axis: int, start: int, length: int) -> Tensor:
    """`length` elements from `start` on along `axis`. ValueError when there are fewer."""
    return call(slicing.narrow, input, axis, start, length)


def slice(input_x: Tensor, begin: Any, size: Any) -> Tensor:
    """size[i] elements (-1: all) from begin[i] on along each axis."""
    return call(slicing.begin_size, input_x, ints(begin, "slice"), ints(size, "slice"))


def strided_slice(
    input_x: Tensor,
    begin: Any,
    end: Any,
    strides: Any,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> Tensor:
    """The elements begin[i]:end[i]:strides[i] of each axis; bit i of a mask changes what entry i means.

    begin_mask, end_mask: the bound is the axis's end. ellipsis_mask: as many axes as needed, whole. new_axis_mask: a
    new axis. shrink_axis_mask: the one element at begin[i], without its axis.
    """
    masks = slicing.Masks(begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_axis_mask)
    bounds = [ints(value, "strided_slice") for value in (begin, end, strides)]
    return call(slicing.strided, input_x, *bounds, masks)


def flip(input: Tensor, dims: Any) -> Tensor:
    """The order of the elements along `dims` reversed."""
    return call(kernel.flip, input, ints(dims, "flip"))


def reverse(x: Tensor, axis: Any) -> Tensor:
    """As `flip`."""
    return flip(x, axis)


def fliplr(input: Tensor) -> Tensor:
    """The columns reversed."""
    return flip(input, (1,))


def flipud(input: Tensor) -> Tensor:
    """The rows reversed."""
    return flip(input, (0,))


def rot90(input: Tensor, k: int, dims: Any) -> Tensor:
    """Turned by `k` quarters from the first axis of `dims` towards the second."""
    first, second = ints(dims, "rot90")
    return wrap(np.rot90(array(input, "rot90"), k, (first, second)))


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved on by `shifts` along `dims`, from the end to the front; flattened when `dims` is None."""
    return call(kernel.roll, input, shifts, dims)


def meshgrid(*inputs: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Each vector repeated along the axes of the others. ValueError unless `indexing` is "xy" or "ij"."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: 'indexing' has to be 'xy' or 'ij', not {indexing!r}")
    return wrapped(np.meshgrid(*arrays(inputs, "meshgrid"), indexing="ij" if indexing == "ij" else "xy"))


def atleast_1d(inputs: Tensor) -> Tensor:
    """With at least one axis."""
    return wrap(np.atleast_1d(array(inputs, "atleast_1d")))


def atleast_2d(inputs: Tensor) -> Tensor:
    """With at least two axes."""
    return wrap(np.atleast_2d(array(inputs, "atleast_2d")))


def atleast_3d(inputs: Tensor) -> Tensor:
    """With at least three axes."""
    return wrap(np.atleast_3d(array(inputs, "atleast_3d")))


def diag(input: Tensor) -> Tensor:
    """Twice as many axes, with the elements where both halves of the position are equal: a vector gives a matrix."""
    return call(slicing.diag_of_all, input)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal over two axes, as the last axis."""
    return call(kernel.diagonal, input, offset, dim1, dim2)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last axis on their diagonals."""
    return call(slicing.diag_embed, input, offset, dim1, dim2)


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    return wrap(settled(np.trace(array(input, "trace"))))


def numel(input: Tensor) -> int:
    """The number of elements."""
    return int(array(input, "numel").size)


def size(input_x: Tensor) -> int:
    """The number of elements."""
    return numel(input_x)


def shape(input_x: Tensor) -> tuple[int, ...]:
    """The size of each axis."""
    return input_x.shape


def rank(input_x: Tensor) -> int:
    """The number of axes."""
    return input_x.ndim


def dtype(x: Tensor) -> Type:
    """The type of the elements."""
    return x.dtype
