"""Rules of NumPy's functions, by the function that they stand for and with its arguments.

Most say what the function does in terms of others; the rest record its result and how a gradient goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from ..kernels.promotion import Array
from .tape import Rule
from .traced import no_rule, plain, record
from .ufuncs import summed_to

RULES: dict[Callable[..., Any], Rule] = {}


def _rule(*functions: Callable[..., Any]) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, rule))
        return rule

    return register


def _constant(function: Callable[..., Any]) -> Rule:
    return lambda *args, **options: function(*plain(args), **options)


# Their results are positions, shapes or truths: constants as far as gradients go.
CONSTANT: tuple[Callable[..., Any], ...] = (
    np.all, np.any, np.argmax, np.argmin, np.argsort, np.count_nonzero, np.isneginf, np.isposinf, np.ndim, np.nonzero,
    np.ones_like, np.shape, np.size, np.zeros_like, np.searchsorted, np.isclose, np.isreal,
)  # fmt: skip
RULES.update({function: _constant(function) for function in CONSTANT})


# --- Reductions


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def _kept(array: Any, axis: Any, ndim: int) -> Any:
    """`array`, the result of a reduction, with the axes that were lost as axes of size 1."""
    shape = list(np.shape(array))
    for a in sorted(_axes(axis, ndim)):
        shape.insert(a, 1)
    return np.reshape(array, shape)


@_rule(np.sum)
def _sum(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    def back(g: Array) -> Array:
        return np.broadcast_to(g if keepdims else _kept(g, axis, a.ndim), a.shape)

    return record(np.sum(a.value, axis=axis, dtype=dtype, keepdims=keepdims), (a, back))


def _count(a: Any, axis: Any) -> int:
    return int(np.prod([a.shape[i] for i in _axes(axis, a.ndim)]))


@_rule(np.mean)
def _mean(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    return _sum(a, axis, dtype, None, keepdims) / np.asarray(_count(a, axis), a.dtype)


@_rule(np.var)
def _var(a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False) -> Any:
    centred = a - _mean(a, axis, keepdims=True)
    return _sum(centred * centred, axis, dtype, None, keepdims) / np.asarray(_count(a, axis) - ddof, a.dtype)


@_rule(np.std)
def _std(a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.sqrt(_var(a, axis, dtype, None, ddof, keepdims))


@_rule(np.prod)
def _prod(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    result = np.prod(a.value, axis=axis, dtype=dtype, keepdims=True)

    def back(g: Array) -> Array:
        return (g if keepdims else _kept(g, axis, a.ndim)) * _product_of_others(a.value, axis)

    return record(result if keepdims else result.squeeze(_axes(axis, a.ndim)), (a, back))


def _product_of_others(a: Array, axis: Any) -> Array:
    """For each element the product of all the others along `axis`, right also where some are zero."""
    axes = _axes(axis, a.ndim)
    moved = np.moveaxis(a, axes, range(-len(axes), 0))
    flat = moved.reshape(*moved.shape[: a.ndim - len(axes)], -1)
    ones = np.ones((*flat.shape[:-1], 1), flat.dtype)
    before = np.cumprod(np.concatenate([ones, flat[..., :-1]], axis=-1), axis=-1)
    behind = np.cumprod(np.concatenate([ones, flat[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return np.moveaxis((before * behind).reshape(moved.shape), range(-len(axes), 0), axes)


def _extreme(function: Callable[..., Any]) -> Rule:
    def rule(a: Any, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        peak = function(a.value, axis=axis, keepdims=True)
        # Of several largest elements each takes an equal share.
        chosen = a.value == peak
        share = chosen / np.sum(chosen, axis=axis, keepdims=True)

        def back(g: Array) -> Array:
            return np.asarray((g if keepdims else _kept(g, axis, a.ndim)) * share)

        return record(peak if keepdims else peak.squeeze(_axes(axis, a.ndim)), (a, back))

    return rule


RULES.update({np.max: _extreme(np.max), np.amax: _extreme(np.max)})
RULES.update({np.min: _extreme(np.min), np.amin: _extreme(np.min)})


@_rule(np.cumsum)
def _cumsum(a: Any, axis: int, dtype: Any = None) -> Any:
    def back(g: Array) -> Array:
        return np.flip(np.cumsum(np.flip(g, axis), axis), axis)

    return record(np.cumsum(a.value, axis, dtype), (a, back))


@_rule(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    several = len(_axes(axis, x.ndim)) > 1
    if (ord == 2 and several) or ord not in (None, "fro", 1, 2):
        raise no_rule(f"numpy.linalg.norm of order {ord!r}")
    if ord == 1:
        if several:
            raise no_rule("numpy.linalg.norm of order 1 of matrices")
        return _sum(np.absolute(x), axis, None, None, keepdims)
    return np.sqrt(_sum(x * x, axis, None, None, keepdims))


# --- Shapes


@_rule(np.transpose)
def _transpose(a: Any, axes: Any = None) -> Any:
    return a.transpose(axes) if axes is not None else a.transpose()


@_rule(np.swapaxes)
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return a.swapaxes(axis1, axis2)


@_rule(np.moveaxis)
def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    return record(np.moveaxis(a.value, source, destination), (a, lambda g: np.moveaxis(g, destination, source)))


@_rule(np.expand_dims)
def _expand_dims(a: Any, axis: Any) -> Any:
    return a.reshape(np.expand_dims(a.value, axis).shape)


@_rule(np.squeeze)
def _squeeze(a: Any, axis: Any = None) -> Any:
    return a.squeeze(axis)


@_rule(np.atleast_1d)
def _atleast_1d(a: Any) -> Any:
    return a.reshape(np.atleast_1d(a.value).shape)


@_rule(np.atleast_2d)
def _atleast_2d(a: Any) -> Any:
    return a.reshape(np.atleast_2d(a.value).shape)


@_rule(np.atleast_3d)
def _atleast_3d(a: Any) -> Any:
    return a.reshape(np.atleast_3d(a.value).shape)


@_rule(np.broadcast_to)
def _broadcast_to(array: Any, shape: Any) -> Any:
    return array + np.zeros(shape, array.dtype)


@_rule(np.tile)
def _tile(A: Any, reps: Any) -> Any:
    times = tuple(reps) if isinstance(reps, tuple | list) else (reps,)
    ndim = max(A.ndim, len(times))
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - A.ndim) + A.shape
    pairs = [n for both in zip(times, shape, strict=True) for n in both]
    apart = A.reshape([n for size in shape for n in (1, size)])
    return np.broadcast_to(apart, pairs).reshape([r * n for r, n in zip(times, shape, strict=True)])


@_rule(np.repeat)
def _repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    flat = a.reshape(-1) if axis is None else a
    places = np.repeat(np.arange(flat.shape[axis or 0]), plain(repeats))
    return _take(flat, places, axis or 0)


@_rule(np.flip)
def _flip(m: Any, axis: Any = None) -> Any:
    return record(np.flip(m.value, axis), (m, lambda g: np.flip(g, axis)))


@_rule(np.roll)
def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    back = tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift
    return record(np.roll(a.value, shift, axis), (a, lambda g: np.roll(g, back, axis)))


@_rule(np.pad)
def _pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode != "constant":
        raise no_rule(f"numpy.pad with mode {mode!r}")
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pad_width, array.shape, strict=True))
    return record(np.pad(array.value, pad_width, constant_values=constant_values), (array, lambda g: g[inside]))


@_rule(np.diagonal)
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    def back(g: Array) -> Array:
        out = np.zeros(a.shape, g.dtype)
        diagonal = np.einsum("...ii->...i", _square(np.moveaxis(out, (axis1, axis2), (-2, -1)), offset))
        diagonal += g
        return out

    return record(np.diagonal(a.value, offset, axis1, axis2), (a, back))


def _square(matrices: Array, offset: int) -> Array:
    """The square view of the last two axes whose main diagonal is the one at `offset`."""
    rows, columns = matrices.shape[-2:]
    moved = matrices[..., max(-offset, 0) :, max(offset, 0) :]
    size = min(rows - max(-offset, 0), columns - max(offset, 0))
    return moved[..., :size, :size]


# --- Joining and cutting


@_rule(np.concatenate)
def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Any:
    parts, start = [], 0
    for array in arrays:
        stop = start + array.shape[axis]
        index = (slice(None),) * (axis % array.ndim) + (slice(start, stop),)
        parts.append((array, lambda g, index=index: g[index]))
        start = stop
    return record(np.concatenate(plain(list(arrays)), axis), *parts)


@_rule(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return np.concatenate([np.expand_dims(a, axis) for a in arrays], axis)


@_rule(np.hstack)
def _hstack(tup: Sequence[Any]) -> Any:
    arrays = [np.atleast_1d(a) for a in tup]
    return np.concatenate(arrays, 0 if arrays[0].ndim == 1 else 1)


@_rule(np.vstack)
def _vstack(tup: Sequence[Any]) -> Any:
    return np.concatenate([np.atleast_2d(a) for a in tup], 0)


@_rule(np.split, np.array_split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    pieces = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    before = (slice(None),) * (axis % ary.ndim)
    return [ary[(*before, slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0))] for p in pieces]


# --- Picking


@_rule(np.where)
def _where(condition: Any, x: Any, y: Any) -> Any:
    chosen = plain(condition)

    def side(given: Any, taken: Callable[[Array], Array]) -> tuple[Any, Callable[[Array], Array]]:
        return given, lambda g: summed_to(taken(g), np.shape(plain(given)))

    return record(
        np.where(chosen, plain(x), plain(y)),
        side(x, lambda g: np.where(chosen, g, 0)),
        side(y, lambda g: np.where(chosen, 0, g)),
    )


@_rule(np.take)
def _take(a: Any, indices: Any, axis: int | None = None, out: None = None, mode: str = "raise") -> Any:
    if axis is None:
        return _take(a.reshape(-1), indices, 0, out, mode)
    size = a.shape[axis]
    places = np.asarray(plain(indices))
    if mode == "clip":
        places = np.clip(places, 0, size - 1)
    elif mode == "wrap":
        places = places % size
    return a[(slice(None),) * (axis % a.ndim) + (places,)]


@_rule(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: int) -> Any:
    places: list[Any] = list(np.indices(np.shape(indices), sparse=True))
    places[axis] = np.asarray(plain(indices))
    # Unlike the others, the picked axes may also be shorter or of size 1: NumPy's own rule for broadcasting.
    for i, n in enumerate(arr.shape):
        if i != axis % arr.ndim and places[i].shape[i] == 1 and n > 1:
            places[i] = np.arange(n).reshape([-1 if j == i else 1 for j in range(arr.ndim)])
    return arr[tuple(places)]


@_rule(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, **options: Any) -> Any:
    low, high = options.get("min", a_min), options.get("max", a_max)
    out = a if low is None else np.maximum(a, low)
    return out if high is None else np.minimum(out, high)


# --- Products


@_rule(np.tensordot)
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    of_a, of_b = (
        _axes(tuple(x) if isinstance(x, range | list) else x, t.ndim) for x, t in zip(axes, (a, b), strict=True)
    )
    rest_a = [i for i in range(a.ndim) if i not in of_a]
    rest_b = [i for i in range(b.ndim) if i not in of_b]
    length = int(np.prod([a.shape[i] for i in of_a]))
    left = np.transpose(a, [*rest_a, *of_a]).reshape(-1, length)
    right = np.transpose(b, [*of_b, *rest_b]).reshape(length, -1)
    return np.matmul(left, right).reshape([a.shape[i] for i in rest_a] + [b.shape[i] for i in rest_b])


@_rule(np.einsum)
def _einsum(equation: str, *operands: Any, **options: Any) -> Any:
    values = plain(operands)
    terms, result = _terms(equation, [v.ndim for v in values])
    pairs = [pair for term, value in zip(terms, values, strict=True) for pair in zip(term, value.shape, strict=True)]
    size = dict(pairs)
    if any(size[letter] != n for letter, n in pairs) or any(len(set(term)) < len(term) for term in terms):
        raise no_rule(f"einsum {equation!r} with letters repeated in one term or sizes that broadcast")

    def back(i: int) -> Callable[[Array], Array]:
        others = [(t, v) for j, (t, v) in enumerate(zip(terms, values, strict=True)) if j != i]
        known = {*result, *"".join(t for t, _ in others)}
        found = "".join(letter for letter in terms[i] if letter in known)

        def gradient(g: Array) -> Array:
            left = ",".join([result, *(t for t, _ in others)])
            part = np.einsum(f"{left}->{found}", g, *(v for _, v in others), optimize="greedy")
            # A letter of this term alone was summed over: every element takes the same gradient.
            shape = [size[letter] if letter in known else 1 for letter in terms[i]]
            return np.broadcast_to(part.reshape(shape), values[i].shape)

        return gradient

    return record(np.einsum(equation, *values, **options), *((v, back(i)) for i, v in enumerate(operands)))


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The terms and the result of an equation, with letters in place of "..."."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        raise no_rule(f"einsum {equation!r} without '->'")
    extra = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    unused = [letter for letter in ascii_letters if letter not in equation]
    shared = "".join(unused[: max(extra)])
    spelled = [term.replace("...", shared[len(shared) - n :]) for term, n in zip(terms, extra, strict=True)]
    return spelled, result.replace("...", shared)
