"""Activation functions, elementwise and over an axis.

The ones that every transformer layer runs (GELU, softmax) work in one private buffer. The result has the dtype of `x`.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from .error_function import erf_in_place
from .half import in_float32
from .promotion import Array, cast, inexact_dtype, settled


def _floating(x: Array) -> Array:
    return cast(x, inexact_dtype(x.dtype))


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN."""
    return np.maximum(x, np.zeros((), x.dtype))


@in_float32
def relu6(x: Array) -> Array:
    """x kept within 0 and 6."""
    return np.clip(x, np.asarray(0, x.dtype), np.asarray(6, x.dtype))


@in_float32
def leaky_relu(x: Array, alpha: float = 0.2) -> Array:
    """x, and alpha * x where x < 0."""
    return np.where(x < 0, x * np.asarray(alpha, x.dtype), x)


@in_float32
def prelu(x: Array, weight: Array) -> Array:
    """x, and weight * x where x < 0; `weight` has one element or one for each element of axis 1."""
    if x.ndim > 1 and weight.size > 1:
        weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
    return np.where(x < 0, x * weight, x)


@in_float32
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x, and alpha * (exp(x) - 1) where x < 0."""
    return np.where(x < 0, np.asarray(alpha, x.dtype) * np.expm1(np.minimum(x, 0)), x)


@in_float32
def celu(x: Array, alpha: float = 1.0) -> Array:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    scale = np.asarray(alpha, x.dtype)
    return np.where(x > 0, x, scale * np.expm1(np.minimum(x / scale, 0)))


@in_float32
def selu(x: Array) -> Array:
    """The self-normalising ELU."""
    scale, alpha = np.asarray(1.0507009873554805, x.dtype), np.asarray(1.6732632423543772, x.dtype)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@in_float32
def gelu(x: Array) -> Array:
    """x * Phi(x) with the error function."""
    x = _floating(x)
    # One buffer from start to end: this and matmul are where a transformer's time goes.
    out = np.multiply(x, np.asarray(1 / sqrt(2), x.dtype), out=np.empty(x.shape, x.dtype))
    become_erf(out)
    out += np.asarray(1, x.dtype)
    out *= x
    out *= np.asarray(0.5, x.dtype)
    return settled(out)


def become_erf(x: Array) -> None:
    """Replaces each element by its error function."""
    if x.dtype == np.float32:
        erf_in_place(x)
    else:
        from scipy.special import erf

        erf(x, out=x)


@in_float32
def gelu_tanh(x: Array) -> Array:
    """GELU by the tanh formula."""
    x = _floating(x)
    out = np.multiply(x, x, out=np.empty_like(x))
    out *= np.asarray(0.044715, x.dtype)
    out += np.asarray(1, x.dtype)
    out *= x
    out *= np.asarray(sqrt(2 / pi), x.dtype)
    np.tanh(out, out=out)
    out += np.asarray(1, x.dtype)
    out *= x
    out *= np.asarray(0.5, x.dtype)
    return out


@in_float32
def fast_gelu(x: Array) -> Array:
    """x * exp(0.851 * (x - |x|)) / (1 + exp(-1.702 * |x|))."""
    size = np.abs(x)
    grown = np.exp(np.asarray(0.851, x.dtype) * (x - size))
    return settled(x * grown / (1 + np.exp(np.asarray(-1.702, x.dtype) * size)))


@in_float32
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    x = _floating(x)
    out = np.multiply(x, np.asarray(0.5, x.dtype), out=np.empty_like(x))
    np.tanh(out, out=out)
    out *= np.asarray(0.5, out.dtype)
    out += np.asarray(0.5, out.dtype)
    return settled(out)


@in_float32
def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    out = sigmoid(x)
    out *= x
    return out


@in_float32
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds `threshold`."""
    scaled = x * np.asarray(beta, x.dtype)
    return np.where(scaled > threshold, x, np.logaddexp(scaled, np.zeros((), x.dtype)) / np.asarray(beta, x.dtype))


@in_float32
def mish(x: Array) -> Array:
    """x * tanh(softplus(x))."""
    return x * np.tanh(np.logaddexp(x, np.zeros((), x.dtype)))


@in_float32
def log_sigmoid(x: Array) -> Array:
    """log(sigmoid(x))."""
    return -np.logaddexp(-x, np.zeros((), x.dtype))


@in_float32
def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return settled(x / (1 + np.abs(x)))


@in_float32
def hard_sigmoid(x: Array) -> Array:
    """(x + 3) / 6 kept within 0 and 1."""
    return settled(np.clip((x + np.asarray(3, x.dtype)) / np.asarray(6, x.dtype), 0, 1))


@in_float32
def hard_swish(x: Array) -> Array:
    """x * hard_sigmoid(x)."""
    return settled(x * hard_sigmoid(x))


@in_float32
def hard_tanh(x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """x kept within `low` and `high`."""
    return np.clip(x, np.asarray(low, x.dtype), np.asarray(high, x.dtype))


@in_float32
def hard_shrink(x: Array, lambd: float = 0.5) -> Array:
    """x, and 0 where |x| <= lambd."""
    return np.where(np.abs(x) > lambd, x, np.zeros((), x.dtype))


@in_float32
def soft_shrink(x: Array, lambd: float = 0.5) -> Array:
    """x moved towards 0 by `lambd`, 0 where |x| <= lambd."""
    bound = np.asarray(lambd, x.dtype)
    return np.where(x > bound, x - bound, np.where(x < -bound, x + bound, np.zeros((), x.dtype)))


@in_float32
def tanh_shrink(x: Array) -> Array:
    """x - tanh(x)."""
    return x - np.tanh(x)


@in_float32
def threshold(x: Array, bound: float, value: float) -> Array:
    """x, and `value` where x <= bound."""
    return np.where(x > bound, x, np.asarray(value, x.dtype))


@in_float32
def glu(x: Array, axis: int = -1) -> Array:
    """The first half of `axis` times the sigmoid of the second. ValueError when its length is odd."""
    if x.shape[axis] % 2:
        raise ValueError(f"glu: axis {axis} has {x.shape[axis]} elements, an odd number")
    first, second = np.split(x, 2, axis=axis)
    return settled(first * sigmoid(second))


@in_float32
def swiglu(x: Array, axis: int = -1) -> Array:
    """The SiLU of the first half of `axis` times the second half. ValueError when its length is odd."""
    if x.shape[axis] % 2:
        raise ValueError(f"swiglu: axis {axis} has {x.shape[axis]} elements, an odd number")
    first, second = np.split(x, 2, axis=axis)
    return settled(silu(first) * second)


@in_float32
def softmax(x: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`. Where all of x is -inf the result is 0, as MindSpore's is on a CPU."""
    x = _floating(x)
    peak = np.max(x, axis=axis, keepdims=True)
    hidden = np.isneginf(peak)
    some_hidden = bool(hidden.any())
    if some_hidden:
        peak[hidden] = 0
    out = np.subtract(x, peak, out=np.empty_like(x))
    np.exp(out, out=out)
    total = np.sum(out, axis=axis, keepdims=True)
    if some_hidden:
        total[hidden] = 1
    out /= total
    return settled(out)


@in_float32
def log_softmax(x: Array, axis: int = -1) -> Array:
    """log(softmax(x)), computed without taking the logarithm of a rounded quotient."""
    out = _floating(x) - np.max(x, axis=axis, keepdims=True)
    out -= np.log(np.sum(np.exp(out), axis=axis, keepdims=True))
    return settled(out)
