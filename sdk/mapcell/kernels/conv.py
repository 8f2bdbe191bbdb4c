"""Convolution and its transpose over one, two or three spatial axes, as one matrix product.

x is (N, C, *spatial), a weight (out, C / groups, *kernel), that of a transposed convolution (C, out / groups, *kernel).
The weight is only ever reshaped to a matrix, which is a view; what is copied is windows of some samples at a time.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .half import in_float32
from .linear import same_dtype
from .promotion import Array, settled
from .windows import Pads, Sizes, extent, padded, windows

# Larger im2col copies fall out of the cache and gain nothing.
_COLUMNS_BYTES = 32 << 20


def conv(
    x: Array, weight: Array, bias: Array | None, stride: Sizes, pads: Pads, dilation: Sizes, groups: int = 1
) -> Array:
    """The cross-correlation of `x` with `weight`. ValueError when ranks, channels or windows do not fit."""
    same_dtype("conv", x, weight, *(() if bias is None else (bias,)))
    if x.ndim != weight.ndim:
        raise ValueError(f"conv: the input has to have {weight.ndim} axes, but its shape is {x.shape}")
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"conv: the weight takes {weight.shape[1] * groups} channels, but the input has {x.shape[1]}")
    if weight.shape[0] % groups:
        raise ValueError(f"conv: {groups} groups do not divide {weight.shape[0]} output channels")
    return correlated(x, weight, bias, stride, pads, dilation, groups)


@in_float32
def correlated(
    x: Array, weight: Array, bias: Array | None, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> Array:
    kernel = weight.shape[2:]
    view = windows(padded(x, pads), kernel, stride, dilation)
    positions = view.shape[2 : 2 + len(kernel)]
    out = np.empty((x.shape[0], groups, weight.shape[0] // groups, prod(positions)), x.dtype)
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    per_sample = x.dtype.itemsize * prod(view.shape[1:])
    step = max(1, _COLUMNS_BYTES // max(per_sample, 1))
    for start in range(0, x.shape[0], step):
        some = slice(start, start + step)
        np.matmul(matrix, columns(view[some], groups, len(kernel)), out=out[some])
    out = out.reshape(x.shape[0], weight.shape[0], *positions)
    if bias is not None:
        out += bias.reshape(-1, *(1,) * len(kernel))
    return out


def columns(view: Array, groups: int, n: int) -> Array:
    """(N, C, *positions, *kernel) -> (N, groups, C / groups * kernel, positions)."""
    batch, channels, *sizes = view.shape
    order = (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))
    return view.transpose(order).reshape(batch, groups, channels // groups * prod(sizes[n:]), prod(sizes[:n]))


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sizes,
    pads: Pads,
    dilation: Sizes,
    groups: int = 1,
    output_padding: Sizes | None = None,
) -> Array:
    """The transpose of `conv`: every input element adds its multiple of the kernel; `pads` cuts from the result's ends.

    Negative padding and `output_padding` (at the ends) add zeros. ValueError when ranks or channels do not fit.
    """
    same_dtype("conv_transpose", x, weight, *(() if bias is None else (bias,)))
    if x.ndim != weight.ndim or x.shape[1] != weight.shape[0]:
        raise ValueError(f"conv_transpose: an input of {x.shape} does not fit a weight of {weight.shape}")
    more = output_padding or (0,) * len(pads)
    cut = [(-before, extra - after) for (before, after), extra in zip(pads, more, strict=True)]
    return transposed(x, weight, bias, stride, cut, dilation, groups)


@in_float32
def transposed(
    x: Array, weight: Array, bias: Array | None, stride: Sizes, grow: Pads, dilation: Sizes, groups: int
) -> Array:
    batch, channels, *sizes = x.shape
    kernel = weight.shape[2:]
    matrix = weight.reshape(groups, channels // groups, -1).swapaxes(1, 2)
    out = np.matmul(matrix, x.reshape(batch, groups, channels // groups, -1))
    out = out.reshape(batch, groups * weight.shape[1], *kernel, *sizes)
    out = padded(_joined(out, stride, dilation), grow)
    if bias is not None:
        out = out + bias.reshape(-1, *(1,) * len(kernel))
    return np.ascontiguousarray(out)


def _joined(parts: Array, stride: Sizes, dilation: Sizes) -> Array:
    """(N, C, *kernel, *positions) -> (N, C, *spatial): what the taps at all positions add up to."""
    n = len(stride)
    for axis in reversed(range(n)):
        taps, places = 2 + axis, parts.ndim - n + axis
        moved = np.moveaxis(parts, (taps, places), (-2, -1))
        parts = np.moveaxis(_overlap_add(moved, stride[axis], dilation[axis]), -1, places - 1)
    return parts


def _overlap_add(parts: Array, stride: int, dilation: int) -> Array:
    """(..., taps, n) -> (..., length): element i of tap t lands on i * stride + t * dilation.

    Rows written with a pitch of length + dilation and read back with a pitch of length are each shifted by
    `dilation` more than the one before; then the taps are summed.
    """
    *lead, taps, n = parts.shape
    length = (n - 1) * stride + extent(taps, dilation)
    buffer = np.zeros((*lead, taps, length + dilation), parts.dtype)
    buffer[..., : (n - 1) * stride + 1 : stride] = parts
    skewed = buffer.reshape(*lead, -1)[..., : taps * length].reshape(*lead, taps, length)
    return settled(skewed.sum(axis=-2))


@in_float32
def unfold(x: Array, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """(N, C, *spatial) -> (N, C * kernel, positions): every window as a column."""
    view = windows(padded(x, pads), kernel, stride, dilation)
    return columns(view, 1, len(kernel))[:, 0]


@in_float32
def fold(columns: Array, size: Sizes, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """The adjoint of `unfold`: columns (N, C * kernel, positions) added up to (N, C, *size)."""
    spans = list(zip(size, kernel, stride, pads, dilation, strict=True))
    positions = [(n + sum(p) - extent(k, d)) // s + 1 for n, k, s, p, d in spans]
    if columns.shape[1] % prod(kernel) or columns.shape[2] != prod(positions):
        raise ValueError(f"fold: columns of {columns.shape} do not fit {tuple(size)} with {tuple(positions)} positions")
    parts = columns.reshape(columns.shape[0], -1, *kernel, *positions)
    out = _joined(parts, stride, dilation)
    return padded(out, [(-p[0], n + p[0] - m) for n, p, m in zip(size, pads, out.shape[2:], strict=True)])
