"""What orders, assigns and passes on.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from typing import Any, TypeVar

from ..common.tensor import Tensor, detached
from ._call import array

T = TypeVar("T")


def identity(x: T) -> T:
    """`x` itself."""
    return x


def stop_gradient(value: T) -> T:
    """`value`, as a constant when a gradient is computed."""
    return detached(value) if isinstance(value, Tensor) else value  # type: ignore[return-value]


def depend(value: T, expr: object) -> T:
    """`value`, after `expr` was evaluated, as Python has already done."""
    del expr
    return value


def assign(variable: Tensor, value: Tensor | float) -> Tensor:
    """Replaces the elements of a Parameter or Tensor in place and returns it. ValueError when the shapes differ."""
    if not isinstance(variable, Tensor):
        raise TypeError(f"assign: expected a Parameter or Tensor, not {type(variable).__name__}")
    source = value if isinstance(value, Tensor) else Tensor(value)
    if source.shape != variable.shape:
        raise ValueError(f"assign: the variable has the shape {variable.shape}, but the value {source.shape}")
    return variable.assign_value(source)


def assign_add(variable: Tensor, value: Tensor | float) -> Tensor:
    """Adds to the elements of a Parameter or Tensor in place and returns it."""
    return assign(variable, variable + value)


def assign_sub(variable: Tensor, value: Tensor | float) -> Tensor:
    """Subtracts from the elements of a Parameter or Tensor in place and returns it."""
    return assign(variable, variable - value)


def print_(*input_x: Any) -> None:
    """Prints its arguments, one a line."""
    for value in input_x:
        print(repr(value) if isinstance(value, Tensor) else value)


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a Tensor (Parameters are)."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is floating."""
    return input.is_floating_point()


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex."""
    return array(input, "is_complex").dtype.kind == "c"


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero. ValueError when there are several."""
    return bool(input)


def deepcopy(input_x: Tensor) -> Tensor:
    """A Tensor with its own copy of the elements."""
    return input_x.copy()
