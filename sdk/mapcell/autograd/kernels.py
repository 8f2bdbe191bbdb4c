"""Rules of kernels that work in place, by the kernel that they stand for and with its arguments.

Where they can, they say the same in other steps, which are recorded; else they have the kernel compute the result.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt
from typing import Any

import numpy as np

from ..kernels import activation, conv, norm, pool
from ..kernels.promotion import Array
from ..kernels.windows import padded, windows
from .tape import Rule
from .traced import plain, record


def _by_derivative(kernel: Rule, derivative: Callable[[Array, Array], Array]) -> Rule:
    """A function of each element, with its derivative at x where its value is y."""

    def rule(x: Any) -> Any:
        y = kernel(plain(x))
        return record(y, (x, lambda g: g * derivative(plain(x), y)))

    return rule


def _gelu_slope(x: Array, y: Array) -> Array:
    erf = np.multiply(x, 1 / sqrt(2), dtype=x.dtype)
    activation.become_erf(erf)
    return np.asarray((1 + erf) / 2 + x * np.exp(-x * x / 2) / sqrt(2 * pi))


def _gelu_tanh_slope(x: Array, y: Array) -> Array:
    inner = sqrt(2 / pi) * (x + 0.044715 * x**3)
    tanh = np.tanh(inner)
    return np.asarray((1 + tanh) / 2 + x * (1 - tanh**2) / 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * x**2))


def _silu_slope(x: Array, y: Array) -> Array:
    s = activation.sigmoid(x)
    return np.asarray(s + x * s * (1 - s))


def _softmax(x: Any, axis: Any = -1) -> Any:
    y = activation.softmax(plain(x), axis)
    return record(y, (x, lambda g: y * (g - np.sum(g * y, axis=axis, keepdims=True))))


def _log_softmax(x: Any, axis: int = -1) -> Any:
    y = activation.log_softmax(plain(x), axis)
    return record(y, (x, lambda g: g - np.exp(y) * np.sum(g, axis=axis, keepdims=True)))


# --- Normalisation


def _layer_norm(x: Any, gamma: Any, beta: Any, axes: int, eps: float) -> tuple[Any, Any, Any]:
    over = tuple(range(x.ndim - axes, x.ndim))
    mean = np.mean(x, axis=over, keepdims=True)
    centred = x - mean
    var = np.mean(centred * centred, axis=over, keepdims=True)
    out = centred / np.sqrt(var + np.asarray(eps, var.dtype))
    out = out if gamma is None else out * gamma
    return out if beta is None else out + beta, mean, var


# --- Convolution


def _conv(x: Any, weight: Any, bias: Any, stride: Any, pads: Any, dilation: Any, groups: int) -> Any:
    source, w = plain(x), plain(weight)
    n = len(stride)

    def by_input(g: Array) -> Array:
        reached = conv.conv_transpose(g, w, None, stride, pads, dilation, groups)
        more = [a - b for a, b in zip(source.shape[2:], reached.shape[2:], strict=True)]
        return conv.conv_transpose(g, w, None, stride, pads, dilation, groups, more)

    def by_weight(g: Array) -> Array:
        view = windows(padded(source, pads), w.shape[2:], stride, dilation)
        return _weight_gradient(conv.columns(view, groups, n), g, groups, w.shape)

    result = conv.conv(source, w, plain(bias), stride, pads, dilation, groups)
    return record(result, (x, by_input), (weight, by_weight), (bias, _over_positions))


def _weight_gradient(columns: Array, g: Array, groups: int, shape: tuple[int, ...]) -> Array:
    by_group = g.reshape(g.shape[0], groups, g.shape[1] // groups, -1)
    return np.asarray(np.matmul(by_group, columns.swapaxes(-1, -2)).sum(axis=0).reshape(shape))


def _over_positions(g: Array) -> Array:
    return np.asarray(g.sum(axis=(0, *range(2, g.ndim))))


def _conv_transpose(x: Any, weight: Any, bias: Any, stride: Any, grow: Any, dilation: Any, groups: int) -> Any:
    source, w = plain(x), plain(weight)
    n = len(stride)

    def whole(g: Array) -> Array:
        return padded(g, [(-before, -after) for before, after in grow])

    def by_input(g: Array) -> Array:
        return conv.conv(whole(g), w, None, stride, [(0, 0)] * n, dilation, groups)

    def by_weight(g: Array) -> Array:
        columns = conv.columns(windows(whole(g), w.shape[2:], stride, dilation), groups, n)
        return _weight_gradient(columns, source, groups, w.shape)

    kernel: Any = conv.transposed
    result = kernel(source, w, plain(bias), stride, grow, dilation, groups)
    return record(result, (x, by_input), (weight, by_weight), (bias, _over_positions))


def _unfold(x: Any, kernel: Any, stride: Any, pads: Any, dilation: Any) -> Any:
    def back(g: Array) -> Array:
        return conv.fold(g, x.shape[2:], kernel, stride, pads, dilation)

    return record(conv.unfold(plain(x), kernel, stride, pads, dilation), (x, back))


def _fold(columns: Any, size: Any, kernel: Any, stride: Any, pads: Any, dilation: Any) -> Any:
    def back(g: Array) -> Array:
        return conv.unfold(g, kernel, stride, pads, dilation)

    return record(conv.fold(plain(columns), size, kernel, stride, pads, dilation), (columns, back))


# --- Pooling


def _max_pool(x: Any, kernel: Any, stride: Any, pads: Any, dilation: Any) -> Any:
    return _max_pool_with_indices(x, kernel, stride, pads, dilation)[0]


def _max_pool_with_indices(x: Any, kernel: Any, stride: Any, pads: Any, dilation: Any) -> tuple[Any, Array]:
    values, where = pool.max_pool_with_indices(plain(x), kernel, stride, pads, dilation)
    n = len(kernel)
    planes = prod(x.shape[: x.ndim - n])

    def back(g: Array) -> Array:
        out = np.zeros((planes, prod(x.shape[-n:])), g.dtype)
        np.add.at(out, (np.arange(planes)[:, None], where.reshape(planes, -1)), g.reshape(planes, -1))
        return out.reshape(x.shape)

    return record(values, (x, back)), where


def _sum_pool(x: Any, kernel: Any, stride: Any, pads: Any) -> Any:
    n = len(kernel)

    def back(g: Array) -> Array:
        rows = g.reshape(1, -1, 1, prod(g.shape[-n:]))
        columns = np.broadcast_to(rows, (1, rows.shape[1], prod(kernel), rows.shape[3])).reshape(1, -1, rows.shape[3])
        return conv.fold(columns, x.shape[-n:], kernel, stride, pads, (1,) * n).reshape(x.shape)

    return record(pool.sum_pool(plain(x), kernel, stride, pads), (x, back))


def _adaptive_avg_pool(x: Any, sizes: Any) -> Any:
    out = x
    for i, wanted in enumerate(sizes):
        axis = x.ndim - len(sizes) + i
        size = x.shape[axis]
        if wanted is None or wanted == size:
            continue
        bins = np.arange(wanted)
        first, end = bins * size // wanted, -(-(bins + 1) * size // wanted)
        inside = (np.arange(size)[:, None] >= first) & (np.arange(size)[:, None] < end)
        means = (inside / (end - first)).astype(x.dtype)
        out = np.moveaxis(np.matmul(np.moveaxis(out, axis, -1), means), -1, axis)
    return out


RULES: dict[Callable[..., Any], Rule] = {
    activation.gelu: _by_derivative(activation.gelu, _gelu_slope),
    activation.gelu_tanh: _by_derivative(activation.gelu_tanh, _gelu_tanh_slope),
    activation.sigmoid: _by_derivative(activation.sigmoid, lambda x, y: y * (1 - y)),
    activation.silu: _by_derivative(activation.silu, _silu_slope),
    activation.softmax: _softmax,
    activation.log_softmax: _log_softmax,
    norm.layer_norm: _layer_norm,
    conv.correlated: _conv,
    conv.transposed: _conv_transpose,
    conv.unfold: _unfold,
    conv.fold: _fold,
    pool.max_pool: _max_pool,
    pool.max_pool_with_indices: _max_pool_with_indices,
    pool.sum_pool: _sum_pool,
    pool.adaptive_avg_pool: _adaptive_avg_pool,
}
