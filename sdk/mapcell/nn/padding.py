"""Layers that put values around the last axes.

`padding` is an int, or (before, after) of the last axis, then of the last but one, and so on; negative ones cut, where
a layer takes them.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from typing import Any, ClassVar

from .. import ops
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels.padding import pad
from .cell import Cell
from .checks import option


class _Padding(Cell):
    """TypeError for another padding than an int or a tuple of ints, ValueError for another number of them."""

    rank: ClassVar[int]
    mode: ClassVar[str] = "constant"
    value: float = 0.0

    def __init__(self, padding: Any) -> None:
        super().__init__()
        who = type(self).__name__
        given = (padding,) * (2 * self.rank) if isinstance(padding, int) else padding
        if not isinstance(given, tuple | list) or not all(isinstance(p, int) for p in given):
            raise TypeError(f"{who}: 'padding' has to be an int or a tuple of ints, not {padding!r}")
        if len(given) % 2 or len(given) > 2 * self.rank:
            raise ValueError(f"{who}: 'padding' has to be an int or a tuple of {2 * self.rank}, but it is {padding!r}")
        if self.mode != "constant" and min(given) < 0:
            raise ValueError(f"{who}: 'padding' must not be negative, but it is {padding!r}")
        self.padding = tuple(given)

    def construct(self, x: Tensor) -> Tensor:
        return ops.pad(x, self.padding, self.mode, self.value if self.mode == "constant" else None)


class ZeroPad2d(_Padding):
    """Zeros around the last two axes."""

    rank = 2


class _ConstantPad(_Padding):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{type(self).__name__}: 'value' has to be a number, not {type(value).__name__}")
        self.value = value


class ConstantPad1d(_ConstantPad):
    """`value` around the last axis."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three axes."""

    rank = 3


class ReflectionPad1d(_Padding):
    """The elements mirrored at the ends of the last axis, the outermost not repeated."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Padding):
    """The elements mirrored at the ends of the last two axes, the outermost not repeated."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Padding):
    """The elements mirrored at the ends of the last three axes, the outermost not repeated."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Padding):
    """The outermost elements of the last axis repeated."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Padding):
    """The outermost elements of the last two axes repeated."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Padding):
    """The outermost elements of the last three axes repeated."""

    rank, mode = 3, "replicate"


class Pad(Cell):
    """Zeros ("CONSTANT") or mirrored elements around all axes, the outermost repeated ("SYMMETRIC") or not ("REFLECT").

    Args:
        paddings: a tuple of one (before, after) for each axis; TypeError unless a tuple.
    """

    def __init__(self, paddings: tuple[tuple[int, int], ...], mode: str = "CONSTANT") -> None:
        super().__init__()
        if not isinstance(paddings, tuple):
            raise TypeError(f"Pad: 'paddings' has to be a tuple, not {type(paddings).__name__}")
        if any(len(pair) != 2 for pair in paddings):
            raise ValueError(f"Pad: 'paddings' has to consist of pairs, but it is {paddings!r}")
        self.paddings = paddings
        self.mode = option(mode, "mode", "Pad", ("CONSTANT", "REFLECT", "SYMMETRIC"))

    def construct(self, x: Tensor) -> Tensor:
        if len(self.paddings) != x.ndim:
            raise ValueError(f"Pad: {len(self.paddings)} pairs do not fit an input of {x.shape}")
        return wrap(pad(unwrap(x), self.paddings, self.mode.lower()))
