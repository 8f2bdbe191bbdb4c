"""What stands in for an array while a gradient is computed through it.

Kernels need not know: `isinstance(recorded, np.ndarray)` holds, and NumPy's own protocols for functions and ufuncs lead
to the recording. Only kernels that work in place ask for a rule of their own, where they look at their inputs anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .promotion import Array, DType


class Recorded:
    """An array and the way that led to it. `autograd.traced` has the only subclass."""

    __slots__ = ("value",)

    value: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.value.shape

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self.value.dtype

    def array(self) -> Array:
        """The elements, with which nothing is recorded."""
        return self.value

    def operand(self) -> Any:
        """Itself: what kernels are to compute with."""
        return self

    def rule(self, kernel: Callable[..., Any]) -> Callable[..., Any] | None:
        """A function that computes what `kernel` does and records it; None when `kernel` itself can be recorded."""
        raise NotImplementedError


def elements(array: Array) -> Array:
    """The elements alone: with them nothing is recorded."""
    return array.value if isinstance(array, Recorded) else array


def rule_for(kernel: Callable[..., Any], values: Iterable[object]) -> Callable[..., Any] | None:
    """The rule to run in place of `kernel`, None when no value is recorded or `kernel` needs none."""
    for value in values:
        if isinstance(value, Recorded):
            return value.rule(kernel)
        if isinstance(value, tuple) and (found := rule_for(kernel, value)) is not None:
            return found
    return None
