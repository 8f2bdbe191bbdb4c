"""``bind``: a network's Parameters become views of attached weights, without a byte being read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mapcell_formats.errors import BindError
from mapcell_formats.manifest import near
from mapcell_formats.renaming import Rename, renamer

from .common.parameter import Parameter
from .fitting import dtype_fault, fitted, listed, shape_fault
from .nn.cell import Cell
from .storage import SharedView, Storage

if TYPE_CHECKING:
    from .weights import Weights

# Comparing a name with all others takes milliseconds: hints for the first ones are help enough.
_HINTS = 10


@dataclass(slots=True)
class _Plan:
    """What fits, and everything that does not."""

    bound: list[tuple[Parameter, Storage]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    converts: bool = False


def bind(
    net: Cell,
    weights: Weights | Mapping[str, Any],
    strict: bool = True,
    prefix: str = "",
    rename: Rename | None = None,
) -> tuple[list[str], list[str]]:
    """Ties each Parameter of `net` to its tensor in `weights`; elements are looked at when they are first used.

    A tensor belongs to the Parameter of that name, else to the one at that attribute path. Unless `strict`, another
    dtype is converted: by the daemon, once for all, or without one at first use, into memory of this process's own.

    Args:
        weights: what ``attach`` gives, or any mapping of names to ndarrays.
        strict: every Parameter has to have its tensor, of its dtype, and every tensor its Parameter.
        prefix: only tensors whose names start with it take part; it is cut off.
        rename: from a tensor's name (without prefix) to the network's: a function, a dict, or a list of (regular
            expression, replacement) that are applied in order. None leaves a tensor out.

    Returns:
        The names of Parameters without a tensor, and of tensors without a Parameter; both are empty if `strict`.

    Raises:
        BindError: everything that does not fit, at once, with near names; nothing was changed.
        TypeError: `net` is no Cell, or `rename` of another kind.
    """
    if not isinstance(net, Cell):
        raise TypeError(f"bind: 'net' has to be a Cell, not {type(net).__name__}")
    plan = _plan(net, _storages(weights), strict, renamer(rename, prefix))
    if plan.faults or (strict and (plan.missing or plan.unexpected)):
        raise BindError(_explained(plan, strict))
    bound = plan.bound
    if plan.converts:
        bound = [(p, storage) for (p, _), storage in zip(bound, fitted(bound), strict=True)]
    for parameter, storage in bound:
        parameter._storage = storage
    return plan.missing, plan.unexpected


def _storages(weights: Weights | Mapping[str, Any]) -> Iterable[tuple[str, Storage]]:
    if not hasattr(weights, "entries"):
        return weights.items()
    # No isinstance: a mapping of any kind may lend its entries.
    lender: Any = weights
    return [(entry.name, SharedView(lender, entry)) for entry in lender.entries()]


def _plan(
    net: Cell, storages: Iterable[tuple[str, Storage]], strict: bool, rename: Callable[[str], str | None]
) -> _Plan:
    plan = _Plan()
    by_name, by_path = _targets(net)
    sources: dict[int, str] = {}
    for source, storage in storages:
        renamed = rename(source)
        if renamed is None:
            continue
        parameter = by_name.get(renamed)
        if parameter is None:
            parameter = by_path.get(renamed)
        if parameter is None:
            plan.unexpected.append(source)
        elif id(parameter) in sources:
            plan.faults.append(f"{sources[id(parameter)]!r} and {source!r} both mean {parameter.name!r}")
        else:
            sources[id(parameter)] = source
            own = parameter._storage
            if storage.shape == own.shape and storage.dtype == own.dtype:
                plan.bound.append((parameter, storage))
            else:
                _fit(plan, parameter, source, storage, strict)
    if len(sources) < len(by_path):
        plan.missing = [p.name for p in by_path.values() if id(p) not in sources]
    return plan


def _targets(net: Cell) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """The Parameters by name, without names that several have, and by path."""
    by_path: dict[str, Parameter] = {}
    by_name: dict[str, Parameter] = {}
    twice: set[str] = set()
    for path, parameter in net.parameters_and_names():
        by_path[path] = parameter
        name = parameter._name
        if by_name.setdefault(name, parameter) is not parameter:
            twice.add(name)
    for name in twice:
        del by_name[name]
    return by_name, by_path


def _fit(plan: _Plan, parameter: Parameter, source: str, storage: Storage, strict: bool) -> None:
    fault = shape_fault(source, storage, parameter) or dtype_fault(source, storage, parameter, strict)
    if fault:
        plan.faults.append(fault)
    else:
        plan.bound.append((parameter, storage))
        plan.converts = True


def _explained(plan: _Plan, strict: bool) -> str:
    lines = ["the weights do not fit the network, and nothing was bound:"]
    if strict and plan.missing:
        lines.append(f"{len(plan.missing)} missing: {listed(plan.missing)}{_hints(plan.missing, plan.unexpected)}")
    if strict and plan.unexpected:
        lines.append(f"{len(plan.unexpected)} unexpected: {listed(plan.unexpected)}")
    lines += plan.faults
    if any(" is " in fault for fault in plan.faults):
        lines.append("to convert dtypes, attach with dtype=..., or bind with strict=False")
    return "\n  ".join(lines)


def _hints(missing: list[str], known: list[str]) -> str:
    hints = [f"{name!r}{near(name, known)}" for name in missing[:_HINTS] if near(name, known)]
    return "".join(f"\n    {hint}" for hint in hints)
