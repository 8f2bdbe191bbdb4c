"""Pooling over the last axes. `pads` is one (before, after) pair for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .half import in_float32
from .promotion import INT64, Array, DType, settled
from .windows import Pads, Sizes, extent, padded, windows


def lowest(dtype: DType) -> float:
    """What no element of `dtype` is below."""
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def ceil_padding(shape: Sizes, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> list[tuple[int, int]]:
    """`pads` enlarged so that a last, partial window counts too, if it starts inside the input or its front padding."""
    out = []
    for n, k, s, (before, after), d in zip(shape, kernel, stride, pads, dilation, strict=True):
        room = n + before + after - extent(k, d)
        count = -(-room // s)
        if count * s >= n + before:
            count -= 1
        out.append((before, after + max(count * s - room, 0)))
    return out


@in_float32
def max_pool(x: Array, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """The largest element of each window; padding never wins."""
    out = padded(x, pads, lowest(x.dtype))
    n = len(kernel)
    # The maximum separates: one axis after the other costs the sum of the kernel's sizes instead of their product.
    for i in range(n):
        axis = out.ndim - n + i
        view = windows(np.moveaxis(out, axis, -1), kernel[i : i + 1], stride[i : i + 1], dilation[i : i + 1])
        out = np.moveaxis(np.max(view, axis=-1), -1, axis)
    return np.ascontiguousarray(out)


@in_float32
def max_pool_with_indices(x: Array, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> tuple[Array, Array]:
    """As `max_pool`, with the flat position of each maximum in its plane of the unpadded `x` (Int64)."""
    n = len(kernel)
    view = windows(padded(x, pads, lowest(x.dtype)), kernel, stride, dilation)
    flat = view.reshape(*view.shape[:-n], -1)
    tap = np.argmax(flat, axis=-1)
    where = np.zeros(tap.shape, INT64)
    taps = np.unravel_index(tap, tuple(kernel))
    for i, size in enumerate(x.shape[-n:]):
        start = (np.arange(view.shape[-2 * n + i]) * stride[i] - pads[i][0]).reshape(-1, *(1,) * (n - 1 - i))
        where = where * size + start + taps[i] * dilation[i]
    return np.take_along_axis(flat, tap[..., None], axis=-1)[..., 0], where


@in_float32
def sum_pool(x: Array, kernel: Sizes, stride: Sizes, pads: Pads) -> Array:
    """The sum of each window; padding counts as zero."""
    out = padded(x, pads)
    n = len(kernel)
    for i in range(n):
        axis = out.ndim - n + i
        view = windows(np.moveaxis(out, axis, -1), kernel[i : i + 1], stride[i : i + 1], (1,))
        out = np.moveaxis(np.sum(view, axis=-1), -1, axis)
    return np.ascontiguousarray(out)


@in_float32
def avg_pool(x: Array, kernel: Sizes, stride: Sizes, pads: Pads, counted: Pads, divisor: int | None = None) -> Array:
    """The mean of each window over the elements of `x` and of that part of the padding that `counted` names.

    `divisor` replaces the number of elements.
    """
    total = sum_pool(x, kernel, stride, pads)
    if divisor:
        return settled(total / np.asarray(divisor, x.dtype))
    for i, size in enumerate(x.shape[-len(kernel) :]):
        count = _window_counts(size, kernel[i], stride[i], pads[i], counted[i], total.shape[i - len(kernel)])
        total /= count.astype(x.dtype).reshape(-1, *(1,) * (len(kernel) - 1 - i))
    return total


def _window_counts(
    size: int, kernel: int, stride: int, pad: tuple[int, int], counted: tuple[int, int], windows_: int
) -> Array:
    start = np.arange(windows_) * stride - pad[0]
    inside = np.minimum(start + kernel, size + counted[1]) - np.maximum(start, -counted[0])
    return settled(np.maximum(inside, 1))


@in_float32
def lp_pool(x: Array, p: float, kernel: Sizes, stride: Sizes, pads: Pads) -> Array:
    """(sum of x**p over each window) ** (1 / p)."""
    total = sum_pool(np.power(x, np.asarray(p, x.dtype)), kernel, stride, pads)
    return settled(np.power(total, np.asarray(1 / p, x.dtype)))


def _bins(size: int, out: int) -> tuple[Array, Array]:
    """The first element of each of `out` bins over `size` elements, and the one behind its last."""
    i = np.arange(out)
    return i * size // out, -(-(i + 1) * size // out)


@in_float32
def adaptive_avg_pool(x: Array, sizes: Sequence[int | None]) -> Array:
    """The mean over floor(i n / o) .. ceil((i + 1) n / o) for each output element i; None keeps an axis."""
    out = x
    for i, wanted in enumerate(sizes):
        axis = x.ndim - len(sizes) + i
        if wanted is None or wanted == x.shape[axis]:
            continue
        first, end = _bins(x.shape[axis], wanted)
        sums = _bin_sums(np.moveaxis(out, axis, -1), first, end)
        out = np.moveaxis(sums / (end - first).astype(x.dtype), -1, axis)
    return np.ascontiguousarray(out)


def _bin_sums(x: Array, first: Array, end: Array) -> Array:
    # reduceat reduces from each index to the next one, and every other result is a bin; the zero gives `end` a place.
    cuts = np.stack([first, end], axis=1).reshape(-1)
    longer = padded(x, [(0, 1)])
    return settled(np.add.reduceat(longer, cuts, axis=-1)[..., ::2])


@in_float32
def adaptive_max_pool(x: Array, sizes: Sequence[int | None]) -> tuple[Array, Array]:
    """The maximum over the bins of `adaptive_avg_pool`, and its flat position in the plane of `x` (Int64)."""
    n = len(sizes)
    planes = x.shape[-n:]
    flat = np.zeros((1,) * 2 * n, INT64)
    for i, (size, wanted) in enumerate(zip(planes, sizes, strict=True)):
        first, end = _bins(size, size if wanted is None else wanted)
        # Bins of unequal size repeat their last element, which changes no maximum.
        reach = np.minimum(first[:, None] + np.arange(int((end - first).max())), end[:, None] - 1)
        shape = [1] * 2 * n
        shape[i], shape[n + i] = reach.shape
        flat = flat * size + reach.reshape(shape)
    flat = flat.reshape(*flat.shape[:n], -1)
    values = x.reshape(*x.shape[:-n], prod(planes))[..., flat]
    tap = np.argmax(values, axis=-1)[..., None]
    where = np.take_along_axis(np.broadcast_to(flat, values.shape), tap, axis=-1)
    return np.take_along_axis(values, tap, axis=-1)[..., 0], where[..., 0]
