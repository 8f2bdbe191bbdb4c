"""``bind_module``: a torch module's parameters and buffers become tensors over shared pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from mapcell_formats import dtypes
from mapcell_formats.errors import BindError, DaemonUnavailable
from mapcell_formats.manifest import near
from mapcell_formats.renaming import Rename, renamer

from ..attaching import attach
from .rebuilding import Buffers, rebuilt
from .tensors import DTYPES, code_of, tensor_of

if TYPE_CHECKING:
    from ..weights import Weights

# Comparing a name with all others takes milliseconds: hints for the first ones are help enough.
_HINTS, _LISTED = 10, 20


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that the weights have, which is made when it is bound."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], torch.Tensor]


@dataclass(slots=True)
class Target:
    """A parameter or buffer of the module, at each of the places where it is used."""

    value: torch.Tensor
    places: list[tuple[str, torch.nn.Module, str]]
    given: Given | None = None

    @property
    def name(self) -> str:
        return self.places[0][0]


@dataclass(slots=True)
class Plan:
    """What is to be bound, and everything that does not fit."""

    targets: list[Target]
    unexpected: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        return [t.name for t in self.targets if t.given is None]


def bind_module(
    module: torch.nn.Module,
    weights: str | os.PathLike[str] | Weights | Mapping[str, Any],
    strict: bool = True,
    assign: bool = True,
    prefix: str = "",
    rename: Rename | None = None,
    device: str | int | torch.device | None = None,
) -> tuple[list[str], list[str]]:
    """Gives every parameter and persistent buffer of `module` its tensor in `weights`, without a copy.

    For modules without memory: built under ``no_init_parameters()``, or on the meta device (``torch.device("meta")``,
    accelerate's ``init_empty_weights``). Parameters that are tied stay tied, and one name of them is enough in the
    weights. Buffers that no checkpoint holds are made again if they were lost on the meta device.

    Args:
        weights: a path or a model's name as ``attach`` takes it, what ``attach(..., mode="c")`` gives, or any mapping
            of names to tensors or arrays.
        strict: everything has to have its tensor, of its dtype, and every tensor its place. Otherwise floating tensors
            are converted: by the daemon, once for all, or by this process; and what is missing stays as it is.
        assign: False copies the elements into the memory that the module has.
        prefix: only tensors whose names start with it take part; it is cut off.
        rename: from a tensor's name (without prefix) to the module's: a function, a dict, or a list of (regular
            expression, replacement) that are applied in order. None leaves a tensor out.
        device: where the module is wanted; any other than the CPU gets copies. To a CUDA device they go straight from
            the shared pages when mapcell[cuda] is installed.

    Returns:
        The names in the module without a tensor, and of tensors without a place; both are empty if `strict`.

    Raises:
        BindError: everything that does not fit, at once, with near names; or lost buffers that cannot be made again.
            Nothing was changed.
        What ``attach`` raises, for a path or a name.
    """
    if isinstance(weights, (str, os.PathLike)):
        with attach(weights, mode="r" if assign and _is_cuda(device) else "c") as attached:
            return bind_module(module, attached, strict, assign, prefix, rename, device)
    plan = _plan(module, list(_given(weights, assign and _is_cuda(device))), strict, assign, renamer(rename, prefix))
    if plan.faults or (strict and (plan.missing or plan.unexpected)):
        raise BindError(_explained(plan, strict))
    buffers, lost = rebuilt(module)
    if lost:
        raise BindError(
            f"{_listed(lost)}: no checkpoint holds these buffers, and what the constructor computed was lost on the "
            "meta device; build the module under mapcell.torch.no_init_parameters() instead"
        )
    placed = _uploaded(weights, plan, torch.device(device)) if assign and device is not None else {}
    _bind(plan, placed, _cast(weights, plan), buffers, assign, device)
    if device is not None:
        _move(module, torch.device(device))
    return plan.missing, plan.unexpected


def _given(weights: Weights | Mapping[str, Any], copied: bool) -> Iterator[Given]:
    if not hasattr(weights, "entries"):
        for name, value in weights.items():
            tensor = value if isinstance(value, torch.Tensor) else tensor_of(value, dtypes.code_of(value.dtype))
            yield Given(name, tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
        return
    # No isinstance: a mapping of any kind may lend its entries.
    lender: Any = weights
    for entry in lender.entries():
        yield Given(entry.name, entry.shape, DTYPES[entry.dtype], lambda entry=entry: _tensor(lender, entry, copied))  # type: ignore[misc]


def _tensor(weights: Weights, entry: Any, copied: bool) -> torch.Tensor:
    array = weights.at(entry)
    if not array.flags.writeable and not copied:
        raise BindError(
            'these weights are read-only, and torch would end the process that writes to one; attach with mode="c", or '
            "bind what mapcell.torch.load_file(..., readonly=True) gives"
        )
    return tensor_of(array, entry.dtype)


def _targets(module: torch.nn.Module) -> list[Target]:
    """Every parameter and persistent buffer once, with all its names."""
    found: dict[int, Target] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        own = {n: b for n, b in part._buffers.items() if n not in part._non_persistent_buffers_set}
        for attribute, value in {**part._parameters, **own}.items():
            if value is not None:
                name = f"{path}.{attribute}" if path else attribute
                found.setdefault(id(value), Target(value, [])).places.append((name, part, attribute))
    return list(found.values())


def _plan(
    module: torch.nn.Module, given: list[Given], strict: bool, assign: bool, rename: Callable[[str], str | None]
) -> Plan:
    plan = Plan(_targets(module))
    by_name = {name: target for target in plan.targets for name, _, _ in target.places}
    sources: dict[str, str] = {}
    for tensor in given:
        name = rename(tensor.name)
        if name is None:
            continue
        target = by_name.get(name)
        if target is None:
            plan.unexpected.append(tensor.name)
        elif name in sources:
            plan.faults.append(f"{sources[name]!r} and {tensor.name!r} both mean {name!r}")
        else:
            sources[name] = tensor.name
            fault = _fault(tensor, target.value, strict, assign)
            if fault is None:
                target.given = tensor
            else:
                plan.faults.append(fault)
                # It is no longer missing: one line for each thing that is wrong.
                target.given = target.given or tensor
    return plan


def _fault(given: Given, wanted: torch.Tensor, strict: bool, assign: bool) -> str | None:
    if is_lazy(wanted):
        return f"{given.name!r} has no shape in the module yet: run the module once, which settles it"
    if not assign and wanted.is_meta:
        return f"{given.name!r} has no memory in the module to copy to: bind with assign=True"
    if given.shape != tuple(wanted.shape):
        return f"{given.name!r} has the shape {given.shape} in the checkpoint, but {tuple(wanted.shape)} in the module"
    converts = not strict and given.dtype.is_floating_point and wanted.dtype.is_floating_point
    if given.dtype != wanted.dtype and not converts:
        has, wants = (str(t.dtype).removeprefix("torch.") for t in (given, wanted))
        return f"{given.name!r} is {has} in the checkpoint, but {wants} in the module"
    return None


def _cast(weights: Any, plan: Plan) -> dict[str, torch.Tensor]:
    """Tensors, by the weights' names, that the daemon casts for all; none without one."""
    if getattr(weights, "backend", None) != "daemon":
        return {}
    wanted: dict[torch.dtype, list[str]] = {}
    for target in plan.targets:
        if target.given is not None and target.given.dtype != target.value.dtype:
            wanted.setdefault(target.value.dtype, []).append(target.given.name)
    cast: dict[str, torch.Tensor] = {}
    source = weights.source or f"{weights.name}@{weights.version}"
    for dtype, names in wanted.items():
        try:
            with attach(source, code_of(dtype), names, mode="c", daemon="require") as derived:
                cast |= {e.name: tensor_of(derived.at(e), e.dtype) for e in derived.entries()}
        except DaemonUnavailable:
            continue
    return cast


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _uploaded(weights: Any, plan: Plan, device: torch.device) -> dict[str, torch.Tensor]:
    """What can go to a CUDA device as it is, there, by the weights' names."""
    if not _is_cuda(device) or not hasattr(weights, "entries"):
        return {}
    from .devices import uploaded

    matching = [t.given for t in plan.targets if t.given is not None and t.given.dtype == t.value.dtype]
    return uploaded(weights, [given.name for given in matching], device)


def _bind(
    plan: Plan,
    placed: Mapping[str, torch.Tensor],
    cast: dict[str, torch.Tensor],
    buffers: list[tuple[torch.nn.Module, Buffers]],
    assign: bool,
    device: Any,
) -> None:
    # All tensors before the first change: making one may fail.
    given = [(t, t.given.name) for t in plan.targets if t.given is not None]
    made = [(t, placed[n] if n in placed else _made(t, cast, device if assign else None)) for t, n in given]
    with torch.no_grad():
        for target, tensor in made:
            if assign:
                _assign(target, tensor)
            else:
                target.value.copy_(tensor)
    for part, tables in buffers:
        part._buffers.update(tables)


def _made(target: Target, cast: dict[str, torch.Tensor], device: Any) -> torch.Tensor:
    assert target.given is not None
    tensor = cast.get(target.given.name)
    if tensor is None:
        tensor = target.given.make()
    return tensor.detach().to(device=device, dtype=target.value.dtype)


def _assign(target: Target, tensor: torch.Tensor) -> None:
    if isinstance(target.value, torch.nn.Parameter):
        parameter = torch.nn.Parameter(tensor, requires_grad=target.value.requires_grad)
        vars(parameter).update(vars(target.value))
        tensor = parameter
    for _, part, attribute in target.places:
        # Not into the dict: recurrent layers note what is set.
        setattr(part, attribute, tensor)


def _move(module: torch.nn.Module, device: torch.device) -> None:
    """Brings along what was not bound: buffers that the module computed."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and not buffer.is_meta:
                part._buffers[name] = buffer.to(device)


def _explained(plan: Plan, strict: bool) -> str:
    lines = ["the weights do not fit the module, and nothing was bound:"]
    missing = plan.missing
    if strict and missing:
        hints = [f"\n    {n!r}{near(n, plan.unexpected)}" for n in missing[:_HINTS] if near(n, plan.unexpected)]
        lines.append(f"{len(missing)} missing: {_listed(missing)}{''.join(hints)}")
    if strict and plan.unexpected:
        lines.append(f"{len(plan.unexpected)} unexpected: {_listed(plan.unexpected)}")
    lines += plan.faults
    if any(" is " in fault for fault in plan.faults):
        lines.append("to convert dtypes, attach with dtype=..., module.to(dtype) first, or bind with strict=False")
    return "\n  ".join(lines)


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_LISTED]))
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
