"""Activation functions, elementwise and over an axis.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

import numpy as np

from ..common.dtype import Type
from ..common.tensor import Tensor, wrap
from ..kernels import activation as kernel
from ._call import array, call


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0). With `inplace` the elements of `input` itself are replaced."""
    out = call(kernel.relu, input)
    return input.assign_value(out) if inplace else out


def relu6(x: Tensor) -> Tensor:
    """x kept within 0 and 6."""
    return call(kernel.relu6, x)


def leaky_relu(input: Tensor, alpha: float | Tensor = 0.2) -> Tensor:
    """input, and alpha * input where it is negative."""
    return call(kernel.leaky_relu, input, float(alpha))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """input, and weight * input where it is negative; one weight, or one for each element of axis 1."""
    x, w = array(input, "prelu"), array(weight, "prelu")
    if w.size > 1 and (x.ndim < 2 or x.shape[1] != w.size):
        raise ValueError(f"prelu: {w.size} weights do not fit axis 1 of {x.shape}")
    return wrap(kernel.prelu(x, w))


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3) -> Tensor:
    """input, and a times it where it is negative, with `a` drawn anew for each element between the bounds."""
    x = array(input, "rrelu")
    slope = np.random.uniform(lower, upper, x.shape).astype(x.dtype)
    return wrap(np.where(x < 0, x * slope, x))


def elu(input_x: Tensor, alpha: float = 1.0) -> Tensor:
    """input, and alpha * (exp(input) - 1) where it is negative."""
    return call(kernel.elu, input_x, alpha)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)). ValueError when `alpha` is 0."""
    if alpha == 0:
        raise ValueError("celu: 'alpha' must not be 0")
    return call(kernel.celu, x, alpha)


def selu(input_x: Tensor) -> Tensor:
    """The self-normalising ELU."""
    return call(kernel.selu, input_x)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input) by the error function ("none") or by "tanh". ValueError for another formula."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: 'approximate' has to be 'none' or 'tanh', not {approximate!r}")
    return call(kernel.gelu if approximate == "none" else kernel.gelu_tanh, input)


def fast_gelu(x: Tensor) -> Tensor:
    """x * exp(0.851 * (x - |x|)) / (1 + exp(-1.702 * |x|))."""
    return call(kernel.fast_gelu, x)


def silu(input: Tensor) -> Tensor:
    """input * sigmoid(input)."""
    return call(kernel.silu, input)


def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    return call(kernel.mish, x)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * input)) / beta; input itself where beta * input exceeds `threshold`."""
    return call(kernel.softplus, input, beta, threshold)


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return call(kernel.softsign, x)


def logsigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return call(kernel.log_sigmoid, x)


def hardsigmoid(input: Tensor) -> Tensor:
    """(input + 3) / 6 kept within 0 and 1."""
    return call(kernel.hard_sigmoid, input)


def hardswish(input: Tensor) -> Tensor:
    """input * hardsigmoid(input)."""
    return call(kernel.hard_swish, input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """input kept within `min_val` and `max_val`."""
    return call(kernel.hard_tanh, input, min_val, max_val)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input, and 0 where |input| <= lambd."""
    return call(kernel.hard_shrink, input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved towards 0 by `lambd`."""
    return call(kernel.soft_shrink, input, lambd)


soft_shrink = softshrink


def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    return call(kernel.tanh_shrink, input)


def threshold(input: Tensor, thr: float, value: float) -> Tensor:
    """input, and `value` where it is not above `thr`."""
    return call(kernel.threshold, input, thr, value)


def glu(x: Tensor, axis: int = -1) -> Tensor:
    """The first half of `axis` times the sigmoid of the second. ValueError when its length is odd."""
    return call(kernel.glu, x, axis)


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """The SiLU of the first half of `dim` times the second half. ValueError when its length is odd."""
    return call(kernel.swiglu, input, dim)


def softmax(input: Tensor, axis: int = -1, *, dtype: Type | None = None) -> Tensor:
    """exp(input) / sum(exp(input)) along `axis`; zeros where all of it is -inf. `dtype` converts the input first."""
    return call(kernel.softmax, input if dtype is None else input.astype(dtype), axis)


def softmin(x: Tensor, axis: int = -1, *, dtype: Type | None = None) -> Tensor:
    """The softmax of -x."""
    return softmax(-x, axis, dtype=dtype)


def log_softmax(logits: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(logits)) along `axis`."""
    return call(kernel.log_softmax, logits, axis)


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Tensor:
    """The softmax of (logits + Gumbel noise) / tau; `hard` gives 1 at its largest element and 0 elsewhere."""
    x = array(logits, "gumbel_softmax")
    noisy = kernel.softmax((x + np.random.gumbel(size=x.shape).astype(x.dtype)) / np.asarray(tau, x.dtype), dim)
    if not hard:
        return wrap(noisy)
    out = np.zeros_like(noisy)
    np.put_along_axis(out, np.expand_dims(noisy.argmax(dim), dim), 1, dim)
    return wrap(out)
