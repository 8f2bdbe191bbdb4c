"""A layer's own Parameters, made from initializers."""

from __future__ import annotations

from typing import Any

from ..storage import array_of
from .dtype import Type, float32
from .initializer import initializer, lazy_init
from .parameter import Parameter, deferring_initialisation, named_parameter
from .tensor import Tensor


def initialised(init: Any, shape: Any, dtype: Type = float32, *, name: str, requires_grad: bool = True) -> Parameter:
    """``Parameter(initializer(init, shape, dtype), name, requires_grad)`` without a Tensor in between."""
    if isinstance(init, Tensor):
        return Parameter(initializer(init, shape, dtype), name, requires_grad)
    storage = lazy_init(init, shape, dtype)
    out = named_parameter(storage if deferring_initialisation.get() else array_of(storage), name)
    out._from_initializer = True
    if requires_grad is not True:
        out.requires_grad = requires_grad
    return out
