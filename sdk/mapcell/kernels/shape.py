"""Views and rearrangements. Whatever can be a view of its input is one: weights are not copied on their way."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from .promotion import Array, promoted


def as_shape(*size: int | Sequence[int]) -> tuple[int, ...]:
    """A shape given as several ints or as one sequence. TypeError for anything else."""
    given = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in given):
        raise TypeError(f"a shape consists of ints, not {given!r}")
    return tuple(int(n) for n in given)  # type: ignore[arg-type]


def reshape(a: Array, shape: Sequence[int]) -> Array:
    """`a` in another shape of as many elements; one -1 is filled in. ValueError when it does not fit."""
    return a.reshape(tuple(shape))


def transpose(a: Array, permutation: Sequence[int]) -> Array:
    """The axes in the order of `permutation`, which has to name each once; ValueError otherwise."""
    return np.transpose(a, tuple(permutation))


def swapaxes(a: Array, first: int, second: int) -> Array:
    return np.swapaxes(a, first, second)


def moveaxis(a: Array, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    return np.moveaxis(a, source, destination)


def expand_dims(a: Array, axis: int) -> Array:
    """`a` with an axis of size 1 at `axis`, -ndim-1 <= axis <= ndim. ValueError outside."""
    if not -a.ndim - 1 <= axis <= a.ndim:
        raise ValueError(f"'axis' has to be within [{-a.ndim - 1}, {a.ndim}], but it is {axis}")
    return np.expand_dims(a, axis)


def squeeze(a: Array, axis: int | Sequence[int] | None = None) -> Array:
    """`a` without its axes of size 1, or without those in `axis`. ValueError when one of these is larger."""
    return np.squeeze(a, axis if axis is None or isinstance(axis, int) else tuple(axis))


def flatten(a: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Joins the axes from `start_dim` to `end_dim`. ValueError when they are out of order or range."""
    if a.ndim == 0:
        return a.reshape(1)
    start, end = _axis(start_dim, a.ndim), _axis(end_dim, a.ndim)
    if start > end:
        raise ValueError(f"'start_dim' {start_dim} lies behind 'end_dim' {end_dim}")
    joined = int(np.prod(a.shape[start : end + 1], dtype=np.int64))
    return a.reshape(*a.shape[:start], joined, *a.shape[end + 1 :])


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is outside [{-ndim}, {ndim})")
    return axis % ndim


def broadcast_to(a: Array, shape: Sequence[int]) -> Array:
    """A read-only view of `a` repeated to `shape`; -1 keeps the size of an axis. ValueError when it does not fit."""
    extra = len(shape) - a.ndim
    full = tuple(a.shape[i - extra] if n == -1 and i >= extra else n for i, n in enumerate(shape))
    return np.broadcast_to(a, full)


def tile(a: Array, repetitions: Sequence[int]) -> Array:
    return np.tile(a, tuple(repetitions))


def repeat(a: Array, repeats: int | Sequence[int], axis: int | None = None) -> Array:
    """Each element along `axis` (of the flattened array when None) `repeats` times."""
    return np.repeat(a, repeats, axis=axis)


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """The arrays one after another along `axis`, in their promoted type."""
    if not arrays:
        raise ValueError("concat: give at least one tensor")
    dtype = arrays[0].dtype
    for array in arrays[1:]:
        dtype = promoted(dtype, array.dtype)
    return np.concatenate([a.astype(dtype, copy=False) for a in arrays], axis=axis)


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """The arrays side by side along a new axis."""
    if not arrays:
        raise ValueError("stack: give at least one tensor")
    return np.stack(arrays, axis=axis)


def split(a: Array, size: int | Sequence[int], axis: int = 0) -> tuple[Array, ...]:
    """Views of `size` elements each along `axis` (the last may be shorter), or of the sizes listed."""
    total = a.shape[axis]
    if isinstance(size, int):
        if size <= 0:
            raise ValueError(f"'split_size_or_sections' has to be positive, but it is {size}")
        cuts = list(range(size, total, size))
    else:
        if sum(size) != total:
            raise ValueError(f"the sections {list(size)} do not add up to the {total} elements of axis {axis}")
        cuts = np.cumsum(size)[:-1].tolist()
    return tuple(np.split(a, cuts, axis=axis))


def chunk(a: Array, chunks: int, axis: int = 0) -> tuple[Array, ...]:
    """At most `chunks` views of equal size along `axis`, the last one perhaps shorter."""
    if chunks <= 0:
        raise ValueError(f"'chunks' has to be positive, but it is {chunks}")
    return split(a, max(ceil(a.shape[axis] / chunks), 1), axis)


def unbind(a: Array, axis: int = 0) -> tuple[Array, ...]:
    """The slices along `axis`, without it."""
    return tuple(np.moveaxis(a, axis, 0))


def flip(a: Array, axis: int | Sequence[int] | None = None) -> Array:
    return np.flip(a, axis if axis is None or isinstance(axis, int) else tuple(axis))


def roll(a: Array, shifts: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Array:
    return np.roll(a, shifts, axis)


def tril(a: Array, diagonal: int = 0) -> Array:
    """The lower triangle of the last two axes; the rest is zero."""
    return np.where(np.tri(a.shape[-2], a.shape[-1], k=diagonal, dtype=bool), a, np.zeros((), a.dtype))


def triu(a: Array, diagonal: int = 0) -> Array:
    """The upper triangle of the last two axes; the rest is zero."""
    return np.where(np.tri(a.shape[-2], a.shape[-1], k=diagonal - 1, dtype=bool), np.zeros((), a.dtype), a)


def diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    return np.diagonal(a, offset, axis1, axis2)
