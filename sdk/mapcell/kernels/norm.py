"""Normalisation. Variances are biased (divisor N) unless said otherwise; statistics of Float32 stay Float32."""

from __future__ import annotations

import numpy as np

from .half import in_float32
from .promotion import Array, settled


@in_float32
def layer_norm(x: Array, gamma: Array | None, beta: Array | None, axes: int, eps: float) -> tuple[Array, Array, Array]:
    """Normalises over the last `axes` axes, times gamma plus beta. Returns the result, the mean and the variance.

    gamma and beta have the shape of the last axes, at most of these. Mean and variance have size 1 on them.
    """
    over = tuple(range(x.ndim - axes, x.ndim))
    size = int(np.prod([x.shape[axis] for axis in over]))
    mean = np.mean(x, axis=over, keepdims=True)
    out = np.subtract(x, mean)
    if axes == 1:
        # A dot product of each row with itself needs no array of squares.
        var = np.einsum("...i,...i->...", out, out)[..., None]
        var /= np.asarray(size, var.dtype)
    else:
        var = np.mean(np.square(out), axis=over, keepdims=True)
    out *= 1 / np.sqrt(var + np.asarray(eps, var.dtype))
    if gamma is not None:
        out *= gamma
    if beta is not None:
        out += beta
    return out, mean, var


@in_float32
def rms_norm(x: Array, gamma: Array, eps: float) -> tuple[Array, Array]:
    """x / sqrt(mean(x^2) + eps) * gamma over the axes of gamma, the last ones. Returns it and 1 / sqrt(...)."""
    over = tuple(range(x.ndim - gamma.ndim, x.ndim))
    scale = 1 / np.sqrt(np.mean(np.square(x), axis=over, keepdims=True) + np.asarray(eps, x.dtype))
    out = np.multiply(x, scale)
    out *= gamma
    return out, scale


@in_float32
def group_norm(
    x: Array, groups: int, gamma: Array | None, beta: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Normalises each of `groups` groups of channels (axis 1). Returns the result, and mean and 1/std (N, groups)."""
    parts = x.reshape(x.shape[0], groups, -1)
    mean = np.mean(parts, axis=2, keepdims=True)
    out = parts - mean
    rstd = 1 / np.sqrt(np.mean(np.square(out), axis=2, keepdims=True) + np.asarray(eps, x.dtype))
    out *= rstd
    out = out.reshape(x.shape)
    if gamma is not None:
        out *= _by_channel(gamma, x.ndim)
    if beta is not None:
        out += _by_channel(beta, x.ndim)
    return out, mean[..., 0], rstd[..., 0]


def _by_channel(values: Array, ndim: int) -> Array:
    return values.reshape(-1, *(1,) * (ndim - 2))


@in_float32
def scale_and_shift(x: Array, mean: Array, var: Array, gamma: Array | None, beta: Array | None, eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) * gamma + beta with one value of each for every channel (axis 1)."""
    scale = 1 / np.sqrt(var + np.asarray(eps, var.dtype))
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    out = np.multiply(x, _by_channel(scale, x.ndim).astype(x.dtype, copy=False))
    out += _by_channel(shift, x.ndim).astype(x.dtype, copy=False)
    return settled(out)


@in_float32
def channel_statistics(x: Array) -> tuple[Array, Array]:
    """The mean and the biased variance of every channel (axis 1) over the batch and all positions."""
    over = (0, *range(2, x.ndim))
    return np.mean(x, axis=over), np.var(x, axis=over)


@in_float32
def instance_norm(x: Array, gamma: Array | None, beta: Array | None, eps: float) -> Array:
    """Normalises every channel of every sample by itself."""
    return group_norm(x, x.shape[1], gamma, beta, eps)[0]


@in_float32
def l2_normalize(x: Array, axis: int, eps: float) -> Array:
    """x divided by its 2-norm along `axis`, which counts as at least sqrt(eps)."""
    return settled(x / np.sqrt(np.maximum(np.sum(np.square(x), axis=axis, keepdims=True), np.asarray(eps, x.dtype))))


@in_float32
def local_response_norm(x: Array, radius: int, bias: float, alpha: float, beta: float) -> Array:
    """x / (bias + alpha * sum of squares over 2 * radius + 1 neighbouring channels) ** beta."""
    squares = np.zeros((x.shape[0], x.shape[1] + 2 * radius, *x.shape[2:]), x.dtype)
    squares[:, radius : radius + x.shape[1]] = np.square(x)
    around = np.lib.stride_tricks.sliding_window_view(squares, 2 * radius + 1, axis=1).sum(axis=-1)
    base = np.asarray(bias, x.dtype) + np.asarray(alpha, x.dtype) * around
    return settled(x / np.power(base, np.asarray(beta, x.dtype)))
