"""``to_float``: running a Cell in another floating type than that of its Parameters.

While such a Cell runs, its floating Tensor arguments, and the Parameters that it or a Cell inside it reads, are cast.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self

from ..common.dtype import Type, bfloat16, float16, float32, float_type
from ..common.parameter import Parameter
from ..common.tensor import Tensor
from ..kernels.promotion import is_floating
from ..storage import converted
from .cell_tree import CellTree

# The type that the innermost running Cell with `to_float` computes in.
running_precision: ContextVar[Type | None] = ContextVar("mapcell_running_precision", default=None)
_FLAGS = {"fp16": float16, "fp32": float32, "bf16": bfloat16}


def in_running_precision(value: Any) -> Any:
    """`value`, cast if it is a floating Tensor and a Cell with `to_float` is running."""
    dtype = running_precision.get()
    return value if dtype is None else _cast(value, dtype)


def _cast(value: Any, dtype: Type) -> Any:
    if isinstance(value, Tensor) and is_floating(value._storage.dtype) and value._storage.dtype != dtype.numpy:
        return value.astype(dtype)
    if isinstance(value, tuple | list):
        return type(value)(_cast(v, dtype) for v in value) if type(value) in (tuple, list) else value
    return value


class CellPrecision(CellTree):
    """Casting of what a Cell works with."""

    _precision: Type | None = None

    def to_float(self, dst_type: Type) -> Self:
        """Runs this Cell and all below in float16, float32 or bfloat16; the last call counts. ValueError otherwise."""
        if dst_type not in (float16, float32, bfloat16):
            raise ValueError(f"to_float: the type is float16, float32 or bfloat16, not {dst_type!r}")
        for _, cell in CellTree.cells_and_names(self):
            cell._precision = dst_type
        return self

    def _set_precision_flags(self, flags: dict[str, Any]) -> None:
        for flag, dtype in _FLAGS.items():
            if flags.get(flag):
                self._precision = dtype
            elif flag in flags and self._precision is dtype:
                self._precision = None

    def _run_in_precision(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        dtype = self._precision
        if dtype is None:
            return run(*args, **kwargs)
        cast_args = tuple(_cast(a, dtype) for a in args)
        cast_kwargs = {name: _cast(a, dtype) for name, a in kwargs.items()}
        token = running_precision.set(dtype)
        try:
            output = run(*cast_args, **cast_kwargs)
        finally:
            running_precision.reset(token)
        # What went through untouched by any operator keeps its type.
        for cast, given in zip((*cast_args, *cast_kwargs.values()), (*args, *kwargs.values()), strict=True):
            if output is cast:
                return given
        return output

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``to(dtype)`` converts floating Parameters and buffers in place. TypeError unless a floating dtype.

        A device given instead is accepted: everything is on the CPU.
        """
        dtypes = [a for a in (*args, *kwargs.values()) if isinstance(a, Type)]
        for dtype in dtypes:
            if dtype not in float_type:
                raise TypeError(f"to: Parameters can be converted to a floating type only, not {dtype!r}")
            for tensor in (*CellTree.get_parameters(self), *CellTree.buffers(self)):
                _convert(tensor, dtype)
        return self

    def to_empty(self, *, device: str | None = None, recurse: bool = True) -> Self:
        """Returns the Cell: there is no other device to make room on."""
        del device, recurse
        return self

    def cast_inputs(self, inputs: tuple[Any, ...], dst_type: Type) -> tuple[Any, ...]:
        """The floating Tensors among `inputs` in `dst_type`."""
        return tuple(_cast(value, dst_type) for value in inputs)

    def auto_cast_inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, in the type set with `to_float` if one is."""
        return inputs if self._precision is None else self.cast_inputs(inputs, self._precision)

    def cast_param(self, param: Parameter) -> Any:
        """The Parameter, in the type set with `to_float` if one is."""
        return param if self._precision is None else _cast(param, self._precision)


def _convert(tensor: Tensor, dtype: Type) -> None:
    if not is_floating(tensor._storage.dtype):
        return
    if tensor.has_init:
        tensor.set_dtype(dtype)
    else:
        tensor._storage = converted(tensor._storage, tensor.shape, dtype.numpy)
