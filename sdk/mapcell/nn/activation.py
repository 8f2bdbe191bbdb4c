"""Activations as layers, and `get_activation`, which finds one by name. Shapes stay as they are unless said otherwise.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..common.dtype import Type, float32
from ..common.parameter import Parameter
from ..common.tensor import Tensor
from .cell import Cell
from .checks import positive


class ReLU(Cell):
    """max(x, 0)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class ReLU6(Cell):
    """x kept within 0 and 6."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu6(x)


class LeakyReLU(Cell):
    """x, and alpha * x where it is negative."""

    def __init__(self, alpha: float | Tensor = 0.2) -> None:
        super().__init__()
        self.alpha = alpha

    def construct(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.alpha)


class ELU(Cell):
    """x, and alpha * (exp(x) - 1) where it is negative."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def construct(self, x: Tensor) -> Tensor:
        return ops.elu(x, self.alpha)


class CELU(Cell):
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)). ValueError at the call when alpha is 0."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def construct(self, x: Tensor) -> Tensor:
        return ops.celu(x, self.alpha)


class SeLU(Cell):
    """The self-normalising ELU."""

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.selu(input_x)


class GELU(Cell):
    """x * Phi(x), by the tanh formula or (approximate=False) by the error function."""

    def __init__(self, approximate: bool = True) -> None:
        super().__init__()
        if not isinstance(approximate, bool):
            raise TypeError(f"GELU: 'approximate' has to be a bool, not {type(approximate).__name__}")
        self.approximate = approximate

    def construct(self, x: Tensor) -> Tensor:
        return ops.gelu(x, "tanh" if self.approximate else "none")


class FastGelu(Cell):
    """x * exp(0.851 * (x - |x|)) / (1 + exp(-1.702 * |x|))."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.fast_gelu(x)


class SiLU(Cell):
    """x * sigmoid(x)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.silu(x)


class Sigmoid(Cell):
    """1 / (1 + exp(-x))."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Cell):
    """The hyperbolic tangent."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Tanhshrink(Cell):
    """x - tanh(x)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.tanhshrink(x)


class Softsign(Cell):
    """x / (1 + |x|)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softsign(x)


class Mish(Cell):
    """x * tanh(softplus(x))."""

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.mish(input_x)


class HSigmoid(Cell):
    """(x + 3) / 6 kept within 0 and 1."""

    def construct(self, input: Tensor) -> Tensor:
        return ops.hardsigmoid(input)


class HSwish(Cell):
    """x times its HSigmoid."""

    def construct(self, input: Tensor) -> Tensor:
        return ops.hardswish(input)


class Hardtanh(Cell):
    """x kept within `min_val` and `max_val`. ValueError unless the first is smaller."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: 'min_val' {min_val} has to be smaller than 'max_val' {max_val}")
        self.min_val, self.max_val = min_val, max_val

    def construct(self, x: Tensor) -> Tensor:
        return ops.hardtanh(x, self.min_val, self.max_val)


class HShrink(Cell):
    """x, and 0 where |x| <= lambd."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def construct(self, input: Tensor) -> Tensor:
        return ops.hardshrink(input, self.lambd)


class SoftShrink(Cell):
    """x moved towards 0 by `lambd`."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def construct(self, input: Tensor) -> Tensor:
        return ops.softshrink(input, self.lambd)


class Threshold(Cell):
    """x, and `value` where it is not above `threshold`."""

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        self.threshold, self.value = threshold, value

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.threshold(input_x, self.threshold, self.value)


class LogSigmoid(Cell):
    """log(sigmoid(x))."""

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.logsigmoid(input_x)


class GLU(Cell):
    """The first half of `axis` times the sigmoid of the second: that axis is halved. ValueError when it is odd."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, x: Tensor) -> Tensor:
        return ops.glu(x, self.axis)


class Softmax(Cell):
    """exp(x) / sum(exp(x)) along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, input: Tensor) -> Tensor:
        return ops.softmax(input, self.axis)


class LogSoftmax(Cell):
    """log(softmax(x)) along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, self.axis)


class Softmin(Cell):
    """The softmax of -x along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmin(x, self.axis)


class Softmax2d(Cell):
    """The softmax over the channels of (N, C, H, W) or (C, H, W). ValueError for other ranks."""

    def construct(self, x: Tensor) -> Tensor:
        if x.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: the input has to have 3 or 4 axes, but its shape is {x.shape}")
        return ops.softmax(x, -3)


class PReLU(Cell):
    """x, and w * x where it is negative, with one w for all or one for each channel (axis 1).

    Args:
        channel: how many, at least 1 (ValueError).
        w: the initial value: a number, a list of `channel` numbers, or a Tensor of them (ValueError otherwise).
    """

    def __init__(self, channel: int = 1, w: float | list[float] | Tensor = 0.25, dtype: Type = float32) -> None:
        super().__init__()
        positive(channel, "channel", "PReLU")
        if not isinstance(w, int | float | list | Tensor):
            raise TypeError(f"PReLU: 'w' has to be a number, a list or a Tensor, not {type(w).__name__}")
        values = np.asarray(w.asnumpy() if isinstance(w, Tensor) else w, dtype.numpy)
        if values.ndim and values.shape != (channel,):
            raise ValueError(f"PReLU: {channel} channels need as many weights, not {values.shape}")
        self.w = Parameter(Tensor(np.broadcast_to(values, (channel,))), name="a")

    def construct(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.w)


class RReLU(Cell):
    """x, and a * x where it is negative, `a` drawn anew for each element. TypeError for bounds that are no numbers."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        if not isinstance(lower, int | float) or not isinstance(upper, int | float):
            raise TypeError("RReLU: 'lower' and 'upper' have to be numbers")
        if lower > upper:
            raise ValueError(f"RReLU: 'lower' {lower} is above 'upper' {upper}")
        self.lower, self.upper = lower, upper

    def construct(self, x: Tensor) -> Tensor:
        return ops.rrelu(x, self.lower, self.upper)


_BY_NAME: dict[str, Callable[..., Cell]] = {
    "celu": CELU,
    "elu": ELU,
    "fast_gelu": FastGelu,
    "fastgelu": FastGelu,
    "gelu": GELU,
    "glu": GLU,
    "hardtanh": Hardtanh,
    "hshrink": HShrink,
    "hsigmoid": HSigmoid,
    "hswish": HSwish,
    "leakyrelu": LeakyReLU,
    "logsigmoid": LogSigmoid,
    "logsoftmax": LogSoftmax,
    "mish": Mish,
    "prelu": PReLU,
    "relu": ReLU,
    "relu6": ReLU6,
    "rrelu": RReLU,
    "selu": SeLU,
    "sigmoid": Sigmoid,
    "silu": SiLU,
    "softmax": Softmax,
    "softmax2d": Softmax2d,
    "softmin": Softmin,
    "softshrink": SoftShrink,
    "softsign": Softsign,
    "tanh": Tanh,
    "tanhshrink": Tanhshrink,
    "threshold": Threshold,
}


def get_activation(name: str | None, prim_name: str | None = None) -> Cell | None:
    """A new layer of that name with its default arguments; None for None. KeyError for an unknown name."""
    if name is None:
        return None
    if name not in _BY_NAME:
        who = f"{prim_name}: " if prim_name else ""
        raise KeyError(f"{who}no activation is called {name!r}; there are {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[name]()


def activation_of(value: Any, who: str) -> Any:
    """The activation that a layer was given: a name, a Cell, a Primitive, or None. TypeError, KeyError."""
    if value is None or isinstance(value, str):
        return get_activation(value, who)
    if isinstance(value, Cell | ops.Primitive):
        return value
    raise TypeError(f"{who}: 'activation' has to be a str, a Cell or a Primitive, not {type(value).__name__}")
