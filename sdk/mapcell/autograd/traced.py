"""An array whose computation is recorded: what a Tensor holds while a gradient is computed through it.

To kernels it is an ndarray; NumPy leads every function and ufunc here by its protocols. What has no rule raises
GradientUnavailable, and so does everything that would take the elements out: no gradient is ever lost silently.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mapcell_formats.errors import GradientUnavailable

from ..kernels.promotion import Array, is_inexact
from ..kernels.recorded import Recorded
from .tape import Tape

# Where the functions are that networks call, and what stands between them and the kernels.
_PUBLIC = ("mapcell.ops.", "mapcell.nn.", "mapcell.common.tensor")
_INNER = ("mapcell.ops._", "mapcell.nn.hooks", "mapcell.nn.cell_")
Part = tuple[Any, Callable[[Array], Array]]


class Traced(Recorded):
    """`value` on a tape. Everything but looking at it is recorded; writing in place is refused."""

    __slots__ = ("slot", "tape")

    def __init__(self, value: Array, tape: Tape) -> None:
        self.value = value
        self.tape = tape
        self.slot = tape.slot()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """ndarray: kernels ask isinstance(x, np.ndarray) to tell arrays from numbers."""
        return np.ndarray

    def rule(self, kernel: Callable[..., Any]) -> Callable[..., Any] | None:
        """The rule of a kernel that works in place."""
        return self.tape.rules.kernels.get(kernel)

    # --- Looking

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.value.size

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.value.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return self.value.strides

    @property
    def flags(self) -> Any:
        """Those of the elements."""
        return self.value.flags

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"<recorded {self.value!r}>"

    def __bool__(self) -> bool:
        return bool(self.value)

    # --- Rearranging

    @property
    def T(self) -> Any:
        """The axes reversed."""
        return self.transpose()

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """As ndarray.reshape."""
        return record(self.value.reshape(*shape, **options), (self, lambda g: g.reshape(self.shape)))

    def transpose(self, *axes: Any) -> Any:
        """As ndarray.transpose."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        inverse = None if order is None else np.argsort([a % self.ndim for a in order])
        return record(np.transpose(self.value, order), (self, lambda g: np.transpose(g, inverse)))

    def swapaxes(self, first: int, second: int) -> Any:
        """As ndarray.swapaxes."""
        return record(self.value.swapaxes(first, second), (self, lambda g: g.swapaxes(first, second)))

    def squeeze(self, axis: Any = None) -> Any:
        """As ndarray.squeeze."""
        return record(self.value.squeeze(axis), (self, lambda g: g.reshape(self.shape)))

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """As ndarray.astype; what no longer is floating has no gradient."""
        return record(self.value.astype(dtype, copy=copy), (self, lambda g: g))

    def copy(self) -> Any:
        """As ndarray.copy."""
        return record(self.value.copy(), (self, lambda g: g))

    def __getitem__(self, index: Any) -> Any:
        where = plain(index)

        def back(gradient: Array) -> Array:
            out = np.zeros(self.shape, gradient.dtype)
            np.add.at(out, where, gradient)
            return out

        return record(np.asarray(self.value[where]), (self, back))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # --- Computing

    def sum(self, axis: Any = None, **options: Any) -> Any:
        """As ndarray.sum."""
        return np.sum(self, axis=axis, **options)

    def mean(self, axis: Any = None, **options: Any) -> Any:
        """As ndarray.mean."""
        return np.mean(self, axis=axis, **options)

    def max(self, axis: Any = None, **options: Any) -> Any:
        """As ndarray.max."""
        return np.max(self, axis=axis, **options)

    def min(self, axis: Any = None, **options: Any) -> Any:
        """As ndarray.min."""
        return np.min(self, axis=axis, **options)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        # `a += b` arrives as add(a, b, out=(a,)), and Python binds the name to what is returned.
        statement = out is not None and len(inputs) == 2 and out[0] is inputs[0]
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        rule = self.tape.rules.ufuncs.get(name)
        if rule is None or options or (out is not None and not statement):
            raise no_rule(f"numpy.{name}" + (" with out=" if out is not None else ""))
        return rule(ufunc, *inputs)

    def __array_function__(self, function: Any, types: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        rule = self.tape.rules.functions.get(function)
        if rule is None:
            raise no_rule(f"{function.__module__}.{function.__name__}")
        return rule(*args, **options)

    # --- Refusing

    def __array__(self, *args: Any, **options: Any) -> Array:
        raise no_rule("a step that writes into an array of its own")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise no_rule("writing in place")

    def __getattr__(self, name: str) -> Any:
        # NumPy asks for protocols by name and has to be told that they are not there.
        if name.startswith("__"):
            raise AttributeError(name)
        raise no_rule(f"ndarray.{name}")


_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "matmul": np.matmul, "floordiv": np.floor_divide, "mod": np.remainder, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_UNARY = {"neg": np.negative, "abs": np.absolute, "invert": np.invert}


def _install(name: str, ufunc: np.ufunc) -> None:
    def method(self: Traced, *other: Any) -> Any:
        return ufunc(self, *other)

    def reflected(self: Traced, other: Any) -> Any:
        return ufunc(other, self)

    setattr(Traced, f"__{name}__", method)
    setattr(Traced, f"__r{name}__", reflected)


# Without __iadd__ and the like, `a += b` means a = a + b.
for _name, _ufunc in {**_BINARY, **_UNARY}.items():
    _install(_name, _ufunc)


def plain(value: Any) -> Any:
    """`value` with what is recorded in it, at any depth, replaced by its elements."""
    if isinstance(value, Traced):
        return value.value
    if type(value) in (tuple, list):
        return type(value)(plain(item) for item in value)
    return value


def record(value: Any, *parts: Part) -> Any:
    """`value`, recorded as computed from `parts`: (input, function from the result's gradient to the input's).

    Inputs that are not recorded do not count, and when none is, or `value` is not floating, `value` itself comes back.
    """
    array = np.asarray(value)
    known = [part for part in parts if isinstance(part[0], Traced) and is_inexact(part[0].dtype)]
    if not known or not is_inexact(array.dtype):
        return array
    tape = known[0][0].tape
    if any(source.tape is not tape for source, _ in known):
        raise nested()
    out = Traced(array, tape)

    def back(gradients: Sequence[Array | None]) -> Iterator[tuple[int, Array]]:
        (gradient,) = gradients
        assert gradient is not None
        for source, step in known:
            yield source.slot, fitted(step(gradient), source)

    tape.add((out.slot,), back)
    return out


def fitted(gradient: Any, source: Traced) -> Array:
    """`gradient` in the dtype of what it belongs to."""
    array = np.asarray(gradient)
    assert array.shape == source.shape, f"a gradient of {array.shape} for {source.shape}"
    return array.astype(source.dtype, copy=False)


def nested() -> GradientUnavailable:
    """The error for a gradient inside of a gradient."""
    return GradientUnavailable(
        "gradients of gradients are not available: a function whose gradient is computed calls for one itself. "
        "Compute the inner one beforehand, or stop_gradient() what goes into it"
    )


def no_rule(what: str) -> GradientUnavailable:
    """The error for something that cannot be recorded, naming the operator that the network called."""
    operator = _operator()
    return GradientUnavailable(
        f"no gradient rule for {what}{f', which {operator} uses' if operator else ''}. Write it with other operators, "
        "give the Cell a bprop method, or pass it what came out of stop_gradient()"
    )


def _operator() -> str:
    """The innermost function of ops, nn or Tensor that is being called, '' outside of them."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_qualname
        public = module.startswith(_PUBLIC) and not module.startswith(_INNER)
        if public and "<locals>" not in name and not name.startswith("_"):
            return f"{module}.{name}" if not name.startswith("Tensor") else name
        frame = frame.f_back  # type: ignore[assignment]
    return ""
