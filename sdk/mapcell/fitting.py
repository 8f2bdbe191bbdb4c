"""Whether a checkpoint's tensor fits a Parameter, and the storage that the Parameter gets from it.

Shapes have to be equal, but the checkpoint's may have ones behind it, (2, 3, 1, 1) for (2, 3). Floating types convert
among each other, and signed integers among each other; anything else has to be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mapcell_formats.dtypes import code_of
from mapcell_formats.errors import DaemonUnavailable

from .common.dtype import int_type
from .common.parameter import Parameter
from .kernels.promotion import DType
from .storage import SharedView, Storage, converted, shared_entry

if TYPE_CHECKING:
    from .weights import Weights

_FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
_FAMILIES = (_FLOATS, frozenset(t.numpy.name for t in int_type))


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


def fitted(pairs: Sequence[tuple[Parameter, Storage]]) -> list[Storage]:
    """Each storage in the shape and dtype of its Parameter, as checked before.

    What has to be converted is converted at first use in this process; but floating tensors of weights that a daemon
    lends are cast by the daemon, once for all processes that ask. Raises what ``attach`` raises, but goes on without a
    daemon that is no longer there.
    """
    cast = _cast_by_daemon(pairs)
    return [
        converted(cast.get(number, given), parameter.shape, parameter._storage.dtype)
        for number, (parameter, given) in enumerate(pairs)
    ]


def _cast_by_daemon(pairs: Sequence[tuple[Parameter, Storage]]) -> dict[int, Storage]:
    groups: dict[tuple[int, DType], tuple[Any, dict[int, str]]] = {}
    for number, (parameter, given) in enumerate(pairs):
        wanted = parameter._storage.dtype
        if given.dtype == wanted or wanted.name not in _FLOATS or (shared := shared_entry(given)) is None:
            continue
        weights, entry = shared
        if getattr(weights, "backend", None) == "daemon":
            groups.setdefault((id(weights), wanted), (weights, {}))[1][number] = entry.name
    out: dict[int, Storage] = {}
    for (_, wanted), (weights, names) in groups.items():
        out |= _cast(weights, wanted, names)
    return out


def _cast(weights: Weights, wanted: DType, names: dict[int, str]) -> dict[int, Storage]:
    from .attaching import attach

    source = weights.source or f"{weights.name}@{weights.version}"
    try:
        cast = attach(source, dtype=code_of(wanted), keys=tuple(names.values()), daemon="require")
    except DaemonUnavailable:
        return {}
    return {number: SharedView(cast, cast.entry(name)) for number, name in names.items()}


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message, the first `limit` of them."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
