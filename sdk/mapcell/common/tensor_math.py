"""Tensor's operators and its elementwise methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import arithmetic, elementwise, indexing
from ..kernels.promotion import Array, Operand, as_array, common_dtype
from .core import TensorCore, operand, required_operand

if TYPE_CHECKING:
    from .tensor import Tensor

BinaryKernel = Callable[[Operand, Operand], Array]


class TensorMath(TensorCore):
    """Arithmetic. Other operands may be Tensors, arrays, numbers, lists and tuples."""

    __slots__ = ()

    def _binary(self, kernel: BinaryKernel, other: object, swap: bool = False) -> Any:
        value = other._array if isinstance(other, TensorCore) else operand(other)
        if value is None:
            return NotImplemented
        return self._wrap(kernel(value, self._array) if swap else kernel(self._array, value))

    def __add__(self, other: object) -> Tensor:
        return self._binary(arithmetic.add, other)  # type: ignore[no-any-return]

    def __radd__(self, other: object) -> Tensor:
        return self._binary(arithmetic.add, other, True)  # type: ignore[no-any-return]

    def __sub__(self, other: object) -> Tensor:
        return self._binary(arithmetic.subtract, other)  # type: ignore[no-any-return]

    def __rsub__(self, other: object) -> Tensor:
        return self._binary(arithmetic.subtract, other, True)  # type: ignore[no-any-return]

    def __mul__(self, other: object) -> Tensor:
        return self._binary(arithmetic.multiply, other)  # type: ignore[no-any-return]

    def __rmul__(self, other: object) -> Tensor:
        return self._binary(arithmetic.multiply, other, True)  # type: ignore[no-any-return]

    def __truediv__(self, other: object) -> Tensor:
        return self._binary(arithmetic.divide, other)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: object) -> Tensor:
        return self._binary(arithmetic.divide, other, True)  # type: ignore[no-any-return]

    def __floordiv__(self, other: object) -> Tensor:
        return self._binary(arithmetic.floor_divide, other)  # type: ignore[no-any-return]

    def __rfloordiv__(self, other: object) -> Tensor:
        return self._binary(arithmetic.floor_divide, other, True)  # type: ignore[no-any-return]

    def __mod__(self, other: object) -> Tensor:
        return self._binary(arithmetic.remainder, other)  # type: ignore[no-any-return]

    def __rmod__(self, other: object) -> Tensor:
        return self._binary(arithmetic.remainder, other, True)  # type: ignore[no-any-return]

    def __pow__(self, other: object) -> Tensor:
        return self._binary(arithmetic.power, other)  # type: ignore[no-any-return]

    def __rpow__(self, other: object) -> Tensor:
        return self._binary(arithmetic.power, other, True)  # type: ignore[no-any-return]

    def __matmul__(self, other: object) -> Tensor:
        if not isinstance(other, TensorCore):
            return NotImplemented
        return self._wrap(arithmetic.matmul(self._array, other._array))

    def __and__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["bitwise_and"], other)  # type: ignore[no-any-return]

    def __or__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["bitwise_or"], other)  # type: ignore[no-any-return]

    def __xor__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["bitwise_xor"], other)  # type: ignore[no-any-return]

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lshift__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["bitwise_left_shift"], other)  # type: ignore[no-any-return]

    def __rshift__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["bitwise_right_shift"], other)  # type: ignore[no-any-return]

    def __neg__(self) -> Tensor:
        return self._wrap(arithmetic.negative(self._array))

    def __pos__(self) -> Tensor:
        return self._wrap(self._array)

    def __abs__(self) -> Tensor:
        return self._wrap(arithmetic.absolute(self._array))

    def __invert__(self) -> Tensor:
        return self._wrap(arithmetic.invert(self._array))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        value = operand(other)
        return False if value is None else self._wrap(arithmetic.equal(self._array, value))  # type: ignore[return-value]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        value = operand(other)
        if value is None:
            return True  # type: ignore[return-value]
        return self._wrap(arithmetic.BINARY["not_equal"](self._array, value))

    def __lt__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["less"], other)  # type: ignore[no-any-return]

    def __le__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["less_equal"], other)  # type: ignore[no-any-return]

    def __gt__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["greater"], other)  # type: ignore[no-any-return]

    def __ge__(self, other: object) -> Tensor:
        return self._binary(arithmetic.BINARY["greater_equal"], other)  # type: ignore[no-any-return]

    __hash__ = object.__hash__

    def matmul(self, tensor2: Tensor) -> Tensor:
        """The matrix product ``self @ tensor2``; both of one dtype (TypeError)."""
        if not isinstance(tensor2, TensorCore):
            raise TypeError(f"matmul: expected a Tensor, not {type(tensor2).__name__}")
        return self.__matmul__(tensor2)

    def div(self, value: object, *, rounding_mode: str | None = None) -> Tensor:
        """``self / value``, or rounded: "floor" downwards, "trunc" towards zero. ValueError for another mode."""
        return self._wrap(elementwise.div(self._array, required_operand(value, "div"), rounding_mode))

    divide = div

    def add(self, other: object, *, alpha: float = 1) -> Tensor:
        """``self + alpha * other``."""
        value = required_operand(other, "add")
        return self._wrap(arithmetic.add(self._array, value if alpha == 1 else arithmetic.multiply(value, alpha)))

    def sub(self, other: object, *, alpha: float = 1) -> Tensor:
        """``self - alpha * other``."""
        value = required_operand(other, "sub")
        return self._wrap(arithmetic.subtract(self._array, value if alpha == 1 else arithmetic.multiply(value, alpha)))

    subtract = sub

    def clamp(self, min: object = None, max: object = None) -> Tensor:
        """The elements kept within `min` and `max`, Tensors or numbers. ValueError when both are None."""
        low = None if min is None else required_operand(min, "clamp")
        high = None if max is None else required_operand(max, "clamp")
        return self._wrap(elementwise.clamp(self._array, low, high))

    clip = clamp

    def round(self, decimals: int = 0) -> Tensor:
        """Rounded to the nearest even of `decimals` places; integers are left alone."""
        return self._wrap(arithmetic.rounding(lambda a: np.round(a, decimals), self._array))

    def __round__(self, ndigits: int = 0) -> Tensor:
        return self.round(ndigits)

    def masked_fill(self, mask: Tensor, value: object) -> Tensor:
        """A copy with `value` where the bool Tensor `mask` is True."""
        return self._wrap(indexing.masked_fill(self._array, mask._array, required_operand(value, "masked_fill")))

    def masked_select(self, mask: Tensor) -> Tensor:
        """The elements where the bool Tensor `mask` is True, flat."""
        return self._wrap(indexing.masked_select(self._array, mask._array))

    def where(self, condition: Tensor, y: object) -> Tensor:
        """Elements of self where `condition` is True, else of `y`."""
        other = required_operand(y, "where")
        dtype = common_dtype(self._array, other)
        return self._wrap(indexing.where(condition._array, self._array, other, dtype))

    def addcmul(self, tensor1: Tensor, tensor2: Tensor, value: float = 1) -> Tensor:
        """``self + value * tensor1 * tensor2``."""
        product = arithmetic.multiply(arithmetic.multiply(tensor1._array, tensor2._array), value)
        return self._wrap(arithmetic.add(self._array, product))

    def allclose(self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
        """Whether all elements differ by at most ``atol + rtol * abs(other)``."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def isclose(self, x2: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
        """Whether elements differ by at most ``atol + rtol * abs(x2)``."""
        return self._wrap(np.isclose(self._array, as_array(x2._array, self._array.dtype), rtol, atol, equal_nan))


def _unary_method(name: str, kernel: Callable[[Array], Array]) -> Callable[[TensorMath], Tensor]:
    def method(self: TensorMath) -> Tensor:
        return self._wrap(kernel(self._array))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``ops.{name}`` of every element."
    return method


def _binary_method(name: str, kernel: BinaryKernel) -> Callable[[TensorMath, object], Tensor]:
    def method(self: TensorMath, other: object) -> Tensor:
        return self._wrap(kernel(self._array, required_operand(other, name)))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``ops.{name}`` of self and `other`, a Tensor or a number."
    return method


_SECOND_NAMES = {
    "absolute": "abs", "negative": "neg", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "multiply": "mul", "eq": "equal",
    "ne": "not_equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "floor_divide":
    "floor_div", "true_divide": "div",
}  # fmt: skip


def _install() -> None:
    """Methods that differ in nothing but their kernel come from the kernels' tables."""
    methods: dict[str, Callable[..., Tensor]] = {n: _unary_method(n, k) for n, k in elementwise.UNARY.items()}
    methods |= {n: _binary_method(n, k) for n, k in elementwise.BINARY.items()}
    methods |= {second: methods[first] for second, first in _SECOND_NAMES.items() if first in methods}
    for name, method in methods.items():
        if name not in TensorMath.__dict__:
            setattr(TensorMath, name, method)


_install()
