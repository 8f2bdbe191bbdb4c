"""The real MindSpore over shared pages: ``bind`` for those who keep its compute. Needs mindspore; imports it on use.

``mapcell.bind`` is for mapcell's own Cells. This one takes a Cell of MindSpore's: each Parameter gets
``Tensor.from_numpy(view)``, which is the view's memory and keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mapcell_formats.errors import BindError
from mapcell_formats.manifest import near
from mapcell_formats.renaming import Rename, renamer

from .fitting import listed

if TYPE_CHECKING:
    from .mapping import Array
    from .weights import Weights

_HINTS = 10
# What MindSpore has no dtype for.
_FOREIGN = frozenset({"float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"})
_FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A Parameter to fill: its name, its path in the network, its shape, and its dtype by NumPy's name."""

    name: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    parameter: Any = None


@dataclass(slots=True)
class Plan:
    """What fits, and everything that does not."""

    bound: list[tuple[Slot, Array]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def bind(
    cell: Any,
    weights: str | os.PathLike[str] | Weights | Mapping[str, Any],
    strict: bool = True,
    prefix: str = "",
    rename: Rename | None = None,
    readonly: bool = False,
) -> tuple[list[str], list[str]]:
    """Makes each Parameter of a MindSpore Cell a Tensor over the shared pages of its tensor in `weights`.

    MindSpore cannot protect a Tensor's memory. Therefore the map is private and copy-on-write: who writes into a
    Parameter changes this process's own copy of the page, and nobody else's.

    Args:
        cell: a ``mindspore.nn.Cell``, best built under its ``no_init_parameters()``.
        weights: a path or a model's name as ``attach`` takes it, what ``attach(..., mode="c")`` gives, or any mapping
            of names to ndarrays.
        strict: every Parameter has to have its tensor, of its dtype, and every tensor its Parameter. Otherwise floating
            tensors are converted by MindSpore, into memory of this process's own; to share what is converted, attach
            with dtype=.
        prefix: only tensors whose names start with it take part; it is cut off.
        rename: from a tensor's name (without prefix) to the network's: a function, a dict, or a list of (regular
            expression, replacement) that are applied in order. None leaves a tensor out.
        readonly: no private pages at all. Writing into a Parameter then ends the process with a segmentation fault.

    Returns:
        The names of Parameters without a tensor, and of tensors without a Parameter; both are empty if `strict`.

    Raises:
        BindError: everything that does not fit, at once, with near names; nothing was changed.
        What ``attach`` raises, for a path or a name.

    Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/Tensor/mindspore.Tensor.from_numpy.html
    """
    if isinstance(weights, (str, os.PathLike)):
        from .attaching import attach

        with attach(weights, mode="r" if readonly else "c") as attached:
            return bind(cell, attached, strict, prefix, rename, readonly)
    rule = renamer(rename, prefix)
    slots = [_slot(path, parameter) for path, parameter in cell.parameters_and_names()]
    plan = planned(slots, ((name, rule(name), array) for name, array in _arrays(weights)), strict, readonly)
    if plan.faults or (strict and (plan.missing or plan.unexpected)):
        raise BindError(explained(plan, strict))
    # All Tensors before the first change: making one may fail.
    made = [(slot.parameter, tensor_of(array)) for slot, array in plan.bound]
    for parameter, tensor in made:
        parameter.set_data(tensor)
    return plan.missing, plan.unexpected


def tensor_of(array: Array) -> Any:
    """A MindSpore Tensor over the array's memory, which it keeps alive. bfloat16 crosses as 16 bits."""
    from mindspore import Tensor, bfloat16

    if array.dtype.name == "bfloat16":
        return Tensor.from_numpy(array.view(np.uint16)).view(bfloat16)
    return Tensor.from_numpy(array)


def planned(
    slots: Iterable[Slot], given: Iterable[tuple[str, str | None, Array]], strict: bool, readonly: bool
) -> Plan:
    """Which array goes where. `given` are arrays with their name, and what that is in the network (None: nothing)."""
    plan, by_name = Plan(), {}
    every = list(slots)
    for slot in every:
        by_name[slot.path] = slot
    # A Parameter's own name first, as MindSpore's own loading has it.
    by_name |= {slot.name: slot for slot in every}
    sources: dict[str, str] = {}
    for source, name, array in given:
        if name is None:
            continue
        found = by_name.get(name)
        if found is None:
            plan.unexpected.append(source)
        elif found.path in sources:
            plan.faults.append(f"{sources[found.path]!r} and {source!r} both mean {found.name!r}")
        else:
            sources[found.path] = source
            if fault := _fault(source, array, found, strict, readonly):
                plan.faults.append(fault)
            else:
                plan.bound.append((found, array))
    plan.missing = [slot.name for slot in every if slot.path not in sources]
    return plan


def explained(plan: Plan, strict: bool) -> str:
    """Everything that is wrong, a line each."""
    lines = ["the weights do not fit the network, and nothing was bound:"]
    if strict and plan.missing:
        hints = [f"\n    {n!r}{near(n, plan.unexpected)}" for n in plan.missing[:_HINTS] if near(n, plan.unexpected)]
        lines.append(f"{len(plan.missing)} missing: {listed(plan.missing)}{''.join(hints)}")
    if strict and plan.unexpected:
        lines.append(f"{len(plan.unexpected)} unexpected: {listed(plan.unexpected)}")
    return "\n  ".join(lines + plan.faults)


def _fault(source: str, array: Array, slot: Slot, strict: bool, readonly: bool) -> str | None:
    has = array.dtype.name
    if array.shape != slot.shape:
        # MindSpore's set_data would take it.
        return f"{source!r} has the shape {array.shape} in the checkpoint, but {slot.shape} in the network"
    if has in _FOREIGN:
        return f"{source!r} is {has}, which MindSpore has not; attach with dtype=..."
    if has != slot.dtype and (strict or not {has, slot.dtype} <= _FLOATS):
        return f"{source!r} is {has} in the checkpoint, but {slot.dtype} in the network; attach with dtype=..."
    if not array.flags.writeable and not readonly:
        return (
            f"{source!r} is read-only, and MindSpore would end the process when it writes there; attach with "
            'mode="c", or say readonly=True'
        )
    return None


def _arrays(weights: Weights | Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    if not hasattr(weights, "entries"):
        yield from weights.items()
        return
    # No isinstance: a mapping of any kind may lend its entries.
    lender: Any = weights
    for entry in lender.entries():
        yield entry.name, lender.at(entry)


def _slot(path: str, parameter: Any) -> Slot:
    # MindSpore spells them "Float32", "BFloat16", "Bool".
    return Slot(parameter.name, path, tuple(parameter.shape), str(parameter.dtype).lower(), parameter)
