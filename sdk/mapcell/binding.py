"""``bind``: a network's Parameters become views of attached weights, without a byte being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mapcell_formats.errors import BindError
from mapcell_formats.manifest import near

from .common.parameter import Parameter
from .fitting import dtype_fault, fitted, listed, shape_fault
from .nn.cell import Cell
from .nn.cell_tree import CellTree, parameters_of
from .storage import SharedView, Storage

if TYPE_CHECKING:
    from mapcell_formats.renaming import Rename

    from .weights import Weights

# Comparing a name with all others takes milliseconds: hints for the first ones are help enough.
_HINTS = 10


class _Plan:
    """What fits, and everything that does not."""

    __slots__ = ("converts", "faults", "missing", "parameters", "storages", "unexpected")

    def __init__(self) -> None:
        # Side by side, not in pairs: these would be an object for each Parameter, for the garbage collector to look at.
        self.parameters: list[Parameter] = []
        self.storages: list[Storage] = []
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.faults: list[str] = []
        self.converts = False


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
    plan = _plan(net, _storages(weights), strict, _renamer(rename, prefix))
    if plan.faults or (strict and (plan.missing or plan.unexpected)):
        raise BindError(_explained(plan, strict))
    storages = plan.storages
    if plan.converts:
        storages = fitted(list(zip(plan.parameters, storages, strict=True)))
    for parameter, storage in zip(plan.parameters, storages, strict=True):
        parameter._storage = storage
    return plan.missing, plan.unexpected


def _storages(weights: Weights | Mapping[str, Any]) -> Iterable[tuple[str, Storage]]:
    if not hasattr(weights, "entries"):
        return weights.items()
    # No isinstance: a mapping of any kind may lend its entries.
    lender: Any = weights
    entries = list(lender.entries())
    return zip([entry.name for entry in entries], [SharedView(lender, entry) for entry in entries], strict=True)


def _renamer(rename: Rename | None, prefix: str) -> Callable[[str], str | None] | None:
    """None where every tensor keeps its name."""
    if rename is None and not prefix:
        return None
    from mapcell_formats.renaming import renamer

    return renamer(rename, prefix)


def _plan(
    net: Cell, storages: Iterable[tuple[str, Storage]], strict: bool, rename: Callable[[str], str | None] | None
) -> _Plan:
    plan = _Plan()
    parameters, bound = plan.parameters, plan.storages
    targets = _Targets(net)
    by_name = targets.by_name
    sources: dict[int, str] = {}
    for source, storage in storages:
        renamed = source if rename is None else rename(source)
        if renamed is None:
            continue
        parameter = by_name.get(renamed)
        if parameter is None:
            parameter = targets.by_path.get(renamed)
        if parameter is None:
            plan.unexpected.append(source)
        elif (first := sources.setdefault(id(parameter), source)) is not source:
            plan.faults.append(f"{first!r} and {source!r} both mean {parameter.name!r}")
        else:
            own = parameter._storage
            # Each usual dtype is one object, so this is quick; whatever is equal all the same fits below.
            if storage.dtype is own.dtype and storage.shape == own.shape:
                parameters.append(parameter)
                bound.append(storage)
            else:
                _fit(plan, parameter, source, storage, strict)
    if len(sources) < len(targets.parameters):
        plan.missing = [p.name for p in targets.parameters if id(p) not in sources]
    return plan


class _Targets:
    """The Parameters of a network: `by_name` without names that several have."""

    def __init__(self, net: Cell) -> None:
        self._net = net
        self.parameters = parameters_of(net)
        self.by_name = {p._name: p for p in self.parameters}
        if len(self.by_name) < len(self.parameters):
            for name, count in Counter(p._name for p in self.parameters).items():
                if count > 1:
                    del self.by_name[name]

    @cached_property
    def by_path(self) -> dict[str, Parameter]:
        """By attribute path, for tensors that are called like no Parameter."""
        return dict(CellTree.parameters_and_names(self._net))


def _fit(plan: _Plan, parameter: Parameter, source: str, storage: Storage, strict: bool) -> None:
    fault = shape_fault(source, storage, parameter) or dtype_fault(source, storage, parameter, strict)
    if fault:
        plan.faults.append(fault)
    else:
        plan.parameters.append(parameter)
        plan.storages.append(storage)
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
