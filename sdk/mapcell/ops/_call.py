"""The one way from Tensors through a kernel to Tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..common.tensor import Tensor, unwrap, wrap
from ..kernels.promotion import Array, Operand


def array(value: object, who: str) -> Array:
    """The elements of a Tensor. TypeError for anything else, arrays and lists included."""
    if isinstance(value, Tensor):
        return unwrap(value)
    raise TypeError(f"{who}: expected a Tensor, not {type(value).__name__}")


def arrays(values: object, who: str) -> list[Array]:
    """The elements of each of several Tensors. TypeError unless they are Tensors in a tuple or list."""
    if not isinstance(values, tuple | list):
        raise TypeError(f"{who}: expected a tuple or list of Tensors, not {type(values).__name__}")
    return [array(value, who) for value in values]


def maybe(value: object, who: str) -> Array | None:
    """The elements of an optional Tensor."""
    return None if value is None else array(value, who)


def operand(value: object, who: str) -> Operand:
    """A Tensor's elements, or a number. TypeError for anything else, arrays and lists included."""
    if isinstance(value, bool | int | float | complex | np.generic):
        return value  # type: ignore[return-value]
    return array(value, who)


def wrapped(results: Sequence[Array]) -> tuple[Tensor, ...]:
    """Each array as a Tensor."""
    return tuple(wrap(result) for result in results)


def call(kernel: Callable[..., Array], tensor: object, *args: object, **options: Any) -> Tensor:
    """The kernel's result for a Tensor; Tensors among the other arguments are unwrapped too. TypeError as `array`."""
    first = array(tensor, kernel.__name__)
    return wrap(kernel(first, *(_plain(value, kernel) for value in args), **options))


def call_all(kernel: Callable[..., Array], tensors: tuple[object, ...], *args: object, **options: Any) -> Tensor:
    """The kernel's result for several Tensors. TypeError as `array`."""
    return wrap(kernel(*arrays(tensors, kernel.__name__), *args, **options))


def _plain(value: object, kernel: Callable[..., Array]) -> object:
    if isinstance(value, Tensor):
        return unwrap(value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"{kernel.__name__}: expected a Tensor, not an ndarray")
    return value
