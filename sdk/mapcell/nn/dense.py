"""Fully connected layers.

Source: https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.Dense.html
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import Any

from .. import ops
from ..common.dtype import Type, float32
from ..common.initialised import initialised
from ..common.initializer import HeUniform, Uniform
from ..common.tensor import Tensor
from .cell import Cell
from .checks import boolean, positive

# Initializers hold no state, so one for all layers does.
_WEIGHT_INIT = HeUniform(sqrt(5))


@cache
def _within(channels: int) -> Uniform:
    return Uniform(1 / sqrt(channels))


def _activation(given: Any) -> Any:
    # Many networks have their activations elsewhere, or none: the module of all of them is for those that ask.
    from .activation import activation_of

    return activation_of(given, "Dense")


class Dense(Cell):
    """activation(x @ weight.T + bias): (..., in_channels) -> (..., out_channels).

    Args:
        weight_init, bias_init: as `init` of `initializer`; by default uniform within 1 / sqrt(in_channels).
        activation: a name of `get_activation`, a Cell or a Primitive.

    Raises:
        TypeError: channels that are no ints, another kind of activation; at the call an input of another dtype.
        ValueError: channels below 1, an init Tensor of another shape; at the call an input of another width.
        KeyError: an unknown name of an activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        weight_init: Any = None,
        bias_init: Any = None,
        has_bias: bool = True,
        activation: Any = None,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.in_channels = positive(in_channels, "in_channels", "Dense")
        self.out_channels = positive(out_channels, "out_channels", "Dense")
        self.has_bias = boolean(has_bias, "has_bias", "Dense")
        weight_init = _WEIGHT_INIT if weight_init is None else weight_init
        self.weight = initialised(weight_init, (out_channels, in_channels), dtype, name="weight")
        bias_init = _within(in_channels) if bias_init is None else bias_init
        self.bias = initialised(bias_init, (out_channels,), dtype, name="bias") if has_bias else None
        self.activation: Any = None if activation is None else _activation(activation)
        self.activation_flag = activation is not None

    def construct(self, x: Tensor) -> Tensor:
        out = ops.dense(x, self.weight, self.bias)
        return self.activation(out) if self.activation_flag else out

    def extend_repr(self) -> str:
        text = f"input_channels={self.in_channels}, output_channels={self.out_channels}"
        if self.has_bias:
            text += f", has_bias={self.has_bias}"
        return f"{text}, activation={self.activation}" if self.activation_flag else text


class BiDense(Cell):
    """input1 @ weight[o] @ input2 + bias[o] for each output o: (..., in1), (..., in2) -> (..., out)."""

    def __init__(
        self,
        in1_channels: int,
        in2_channels: int,
        out_channels: int,
        weight_init: Any = None,
        bias_init: Any = None,
        has_bias: bool = True,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.in1_channels = positive(in1_channels, "in1_channels", "BiDense")
        self.in2_channels = positive(in2_channels, "in2_channels", "BiDense")
        self.out_channels = positive(out_channels, "out_channels", "BiDense")
        self.has_bias = boolean(has_bias, "has_bias", "BiDense")
        weight_init = _within(in1_channels) if weight_init is None else weight_init
        shape = (out_channels, in1_channels, in2_channels)
        self.weight = initialised(weight_init, shape, dtype, name="weight")
        bias_init = _within(in1_channels) if bias_init is None else bias_init
        self.bias = initialised(bias_init, (out_channels,), dtype, name="bias") if has_bias else None

    def construct(self, input1: Tensor, input2: Tensor) -> Tensor:
        return ops.bidense(input1, input2, self.weight, self.bias)

    def extend_repr(self) -> str:
        text = (
            f"in1_channels={self.in1_channels}, in2_channels={self.in2_channels}, output_channels={self.out_channels}"
        )
        return f"{text}, has_bias={self.has_bias}" if self.has_bias else text


class MatMul(Cell):
    """x1 @ x2, either one read transposed."""

    def __init__(self, transpose_x1: bool = False, transpose_x2: bool = False) -> None:
        super().__init__()
        self.transpose_x1 = boolean(transpose_x1, "transpose_x1", "MatMul")
        self.transpose_x2 = boolean(transpose_x2, "transpose_x2", "MatMul")

    def construct(self, x1: Tensor, x2: Tensor) -> Tensor:
        left = x1.swapaxes(-1, -2) if self.transpose_x1 and x1.ndim > 1 else x1
        right = x2.swapaxes(-1, -2) if self.transpose_x2 and x2.ndim > 1 else x2
        return ops.matmul(left, right)
