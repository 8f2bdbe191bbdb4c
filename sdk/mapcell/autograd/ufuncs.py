"""Rules of NumPy's ufuncs: for each, the derivatives by its inputs as g, y, *inputs -> gradient.

g is the gradient of the result y. Broadcast inputs have their gradients summed back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np

from ..kernels.promotion import Array
from .tape import Rule
from .traced import plain, record

Derivative = Callable[..., Any]

_LOG2, _LOG10 = np.log(2.0), np.log(10.0)


def _half_where_equal(a: Array, b: Array) -> Array:
    """1 where a > b, a half where they are equal: neither of two equal inputs is the larger one."""
    return np.where(a == b, 0.5, a > b)


def _power_by_exponent(g: Array, y: Array, a: Array, b: Array) -> Array:
    # log of a base that is not positive: the derivative is taken as 0, as where the exponent is constant.
    return np.asarray(g * y * np.log(np.where(np.asarray(a) > 0, a, 1)))


DERIVATIVES: dict[str, tuple[Derivative, ...]] = {
    "add": (lambda g, y, a, b: g, lambda g, y, a, b: g),
    "subtract": (lambda g, y, a, b: g, lambda g, y, a, b: -g),
    "multiply": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "divide": (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    "power": (lambda g, y, a, b: g * b * np.power(a, np.where(np.asarray(b) == 0, 1, b - 1)), _power_by_exponent),
    "maximum": (lambda g, y, a, b: g * _half_where_equal(a, b), lambda g, y, a, b: g * _half_where_equal(b, a)),
    "minimum": (lambda g, y, a, b: g * _half_where_equal(b, a), lambda g, y, a, b: g * _half_where_equal(a, b)),
    "arctan2": (lambda g, y, a, b: g * b / (a * a + b * b), lambda g, y, a, b: -g * a / (a * a + b * b)),
    "hypot": (lambda g, y, a, b: g * a / y, lambda g, y, a, b: g * b / y),
    "logaddexp": (lambda g, y, a, b: g * np.exp(a - y), lambda g, y, a, b: g * np.exp(b - y)),
    "logaddexp2": (lambda g, y, a, b: g * np.exp2(a - y), lambda g, y, a, b: g * np.exp2(b - y)),
    "remainder": (lambda g, y, a, b: g, lambda g, y, a, b: -g * np.floor_divide(a, b)),
    "negative": (lambda g, y, a: -g,),
    "absolute": (lambda g, y, a: g * np.sign(a),),
    "square": (lambda g, y, a: g * 2 * a,),
    "sqrt": (lambda g, y, a: g / (2 * y),),
    "reciprocal": (lambda g, y, a: -g * y * y,),
    "exp": (lambda g, y, a: g * y,),
    "exp2": (lambda g, y, a: g * y * _LOG2,),
    "expm1": (lambda g, y, a: g * (y + 1),),
    "log": (lambda g, y, a: g / a,),
    "log2": (lambda g, y, a: g / (a * _LOG2),),
    "log10": (lambda g, y, a: g / (a * _LOG10),),
    "log1p": (lambda g, y, a: g / (1 + a),),
    "sin": (lambda g, y, a: g * np.cos(a),),
    "cos": (lambda g, y, a: -g * np.sin(a),),
    "tan": (lambda g, y, a: g * (1 + y * y),),
    "sinh": (lambda g, y, a: g * np.cosh(a),),
    "cosh": (lambda g, y, a: g * np.sinh(a),),
    "tanh": (lambda g, y, a: g * (1 - y * y),),
    "arcsin": (lambda g, y, a: g / np.sqrt(1 - a * a),),
    "arccos": (lambda g, y, a: -g / np.sqrt(1 - a * a),),
    "arctan": (lambda g, y, a: g / (1 + a * a),),
    "arcsinh": (lambda g, y, a: g / np.sqrt(1 + a * a),),
    "arccosh": (lambda g, y, a: g / np.sqrt(a * a - 1),),
    "arctanh": (lambda g, y, a: g / (1 - a * a),),
    "erf": (lambda g, y, a: g * np.exp(-a * a) * (2 / sqrt(pi)),),
    "erfc": (lambda g, y, a: -g * np.exp(-a * a) * (2 / sqrt(pi)),),
}

# Their results are steps or truths: constants as far as gradients go.
CONSTANT = (
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor",
    "logical_not", "isnan", "isinf", "isfinite", "signbit", "sign", "floor", "ceil", "rint", "trunc", "floor_divide",
)  # fmt: skip


def summed_to(gradient: Any, shape: tuple[int, ...]) -> Array:
    """`gradient` summed over the axes that broadcasting added to `shape` or made longer."""
    array = np.asarray(gradient)
    if array.shape == shape:
        return array
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and array.shape[i] != 1)
    return np.asarray(np.broadcast_to(array.sum(axis=stretched, keepdims=True), shape))


def _elementwise(derivatives: tuple[Derivative, ...]) -> Rule:
    def rule(ufunc: np.ufunc, *inputs: Any) -> Any:
        values = plain(inputs)
        result = ufunc(*values)

        def back(i: int) -> Callable[[Array], Array]:
            def gradient(g: Array) -> Array:
                with np.errstate(all="ignore"):
                    return summed_to(derivatives[i](g, result, *values), np.shape(values[i]))

            return gradient

        return record(result, *((given, back(i)) for i, given in enumerate(inputs)))

    return rule


def _constant(ufunc: np.ufunc, *inputs: Any) -> Any:
    return ufunc(*plain(inputs))


def _matmul(ufunc: np.ufunc, a: Any, b: Any) -> Any:
    x, y = plain(a), plain(b)
    # Vectors as matrices, so that there is one case left; their extra axis is not in the result.
    left, right = x.reshape(1, -1) if x.ndim == 1 else x, y.reshape(-1, 1) if y.ndim == 1 else y
    result = ufunc(x, y)
    whole = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])

    def by_left(g: Array) -> Array:
        return summed_to(np.matmul(g.reshape(whole), right.swapaxes(-1, -2)), left.shape).reshape(x.shape)

    def by_right(g: Array) -> Array:
        return summed_to(np.matmul(left.swapaxes(-1, -2), g.reshape(whole)), right.shape).reshape(y.shape)

    return record(result, (a, by_left), (b, by_right))


def _outer(ufunc: np.ufunc, a: Any, b: Any) -> Any:
    return ufunc(a.reshape(*a.shape, *(1,) * b.ndim), b)


RULES: dict[str, Rule] = {
    **{name: _elementwise(derivatives) for name, derivatives in DERIVATIVES.items()},
    **dict.fromkeys(CONSTANT, _constant),
    "matmul": _matmul,
    "multiply.outer": _outer,
}
