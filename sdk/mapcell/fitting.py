"""Whether a checkpoint's tensor fits a Parameter, and the storage that the Parameter gets from it.

Shapes have to be equal, but the checkpoint's may have ones behind it, (2, 3, 1, 1) for (2, 3). Floating types convert
among each other, and signed integers among each other; anything else has to be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from .common.dtype import float_type, int_type
from .common.parameter import Parameter
from .kernels.promotion import DType
from .storage import Storage, converted

_FAMILIES = (frozenset(t.numpy.name for t in float_type[:3]) | {"bfloat16"}, frozenset(t.numpy.name for t in int_type))


def shape_fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor of shape `given` can become one of shape `wanted`."""
    rank = len(wanted)
    return given[:rank] == wanted and all(n == 1 for n in given[rank:])


def dtype_converts(given: DType, wanted: DType) -> bool:
    """Whether elements of type `given` may be converted to `wanted` (equal types may)."""
    return given == wanted or any({given.name, wanted.name} <= family for family in _FAMILIES)


def shape_fault(name: str, given: Storage, parameter: Parameter) -> str | None:
    """What is wrong with the shape, or None."""
    if shape_fits(given.shape, parameter.shape):
        return None
    return f"{name!r} has the shape {given.shape} in the checkpoint, but {parameter.shape} in the network"


def dtype_fault(name: str, given: Storage, parameter: Parameter, strict: bool) -> str | None:
    """What is wrong with the dtype, or None; `strict` allows no conversion."""
    wanted = parameter._storage.dtype
    if given.dtype == wanted or (not strict and dtype_converts(given.dtype, wanted)):
        return None
    return f"{name!r} is {given.dtype} in the checkpoint, but {wanted} in the network"


def fitted(given: Storage, parameter: Parameter) -> Storage:
    """`given` in the shape and dtype of `parameter`; converted at first use if it has to be."""
    return converted(given, parameter.shape, parameter._storage.dtype)


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message, the first `limit` of them."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
