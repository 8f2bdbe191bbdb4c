"""Functions that run before or after a Cell does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Any, TypeVar

from mapcell_formats.record import Record

from ..common.tensor import is_recorded
from ..log import warn

_handle_ids = count(1)
Hook = Callable[..., Any]
T = TypeVar("T")
_NONE: Mapping[int, Any] = MappingProxyType({})


class HookHandle:
    """What a register method returns: `remove` takes the hook away again; a second time does nothing."""

    __slots__ = ("_hooks", "handle_id")

    def __init__(self, hooks: OrderedDict[int, Any]) -> None:
        self._hooks = hooks
        self.handle_id = next(_handle_ids)

    def remove(self) -> None:
        """Takes the hook away."""
        self._hooks.pop(self.handle_id, None)


class _ForwardHook(Record):
    function: Hook
    with_kwargs: bool = False
    always_call: bool = False


def _checked(function: Any) -> Hook:
    if not callable(function):
        raise TypeError(f"a hook has to be callable, not {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _add(hooks: OrderedDict[int, T], hook: T, prepend: bool = False) -> HookHandle:
    handle = HookHandle(hooks)
    hooks[handle.handle_id] = hook
    if prepend:
        hooks.move_to_end(handle.handle_id, last=False)
    return handle


class CellHooks:
    """A Cell's hooks, and running them."""

    # A Cell has its own from the first hook on: few have any, and a network may have thousands of Cells.
    _forward_pre_hooks: Mapping[int, _ForwardHook] = _NONE
    _forward_hooks: Mapping[int, _ForwardHook] = _NONE
    _backward_hooks: Mapping[int, Hook] = _NONE
    _backward_pre_hooks: Mapping[int, Hook] = _NONE

    # Whether there is any, or a bprop. One question for every call, instead of one for each kind of hook.
    _hooked = False

    def register_forward_pre_hook(
        self, hook_fn: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """``hook_fn(cell, args)`` runs before `construct`; what it returns, unless None, replaces the arguments.

        A tuple replaces all, another value becomes the only one. With `with_kwargs`: ``hook_fn(cell, args, kwargs)``,
        returning None or (args, kwargs). TypeError unless callable.
        """
        return self._add("_forward_pre_hooks", _ForwardHook(_checked(hook_fn), with_kwargs), prepend)

    def register_forward_hook(
        self, hook_fn: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> HookHandle:
        """``hook_fn(cell, args, output)`` runs after `construct`; what it returns, unless None, replaces the output.

        With `with_kwargs`: ``hook_fn(cell, args, kwargs, output)``. With `always_call` it runs, with None, when
        `construct` raises too. TypeError unless callable.
        """
        return self._add("_forward_hooks", _ForwardHook(_checked(hook_fn), with_kwargs, always_call), prepend)

    def register_backward_hook(self, hook_fn: Hook) -> HookHandle:
        """``hook_fn(cell, grad_input, grad_output)`` runs when a gradient has passed. TypeError unless callable.

        Both are tuples of Tensors, one for each input and output. What it returns, unless None, replaces `grad_input`.
        """
        return self._add("_backward_hooks", _checked(hook_fn))

    def register_backward_pre_hook(self, hook_fn: Hook) -> HookHandle:
        """``hook_fn(cell, grad_output)`` runs before a gradient passes the Cell. TypeError unless callable.

        What it returns, unless None, replaces `grad_output`, a tuple of Tensors.
        """
        return self._add("_backward_pre_hooks", _checked(hook_fn))

    def _add(self, kind: str, hook: Hook | _ForwardHook, prepend: bool = False) -> HookHandle:
        self.__dict__["_hooked"] = True
        return _add(self.__dict__.setdefault(kind, OrderedDict()), hook, prepend)

    def _run_with_hooks(self, run: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook in tuple(self._forward_pre_hooks.values()):
            args, kwargs = _replaced_arguments(self, hook, args, kwargs)
        try:
            output = self._run_for_gradients(run, args, kwargs)
        # Whatever construct raised goes on its way once the hooks that always run have run.
        except Exception:
            self._run_always_called(args, kwargs)
            raise
        for hook in tuple(self._forward_hooks.values()):
            changed = _after(self, hook, args, kwargs, output)
            output = output if changed is None else changed
        return output

    def _run_for_gradients(self, run: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        backward = self._backward_hooks or self._backward_pre_hooks or hasattr(type(self), "bprop")
        if not backward or not any(map(is_recorded, (*args, *kwargs.values(), *self._own_parameters()))):
            return run(*args, **kwargs)
        from ..autograd.cells import run_cell

        return run_cell(self, run, args, kwargs)

    def _own_parameters(self) -> Iterable[Any]:
        """The Parameters below, which may be what a gradient is computed by."""
        raise NotImplementedError("Cell provides this")

    def _run_always_called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for hook in tuple(self._forward_hooks.values()):
            if not hook.always_call:
                continue
            try:
                _after(self, hook, args, kwargs, None)
            except Exception:  # the error of construct is the one to report
                warn("a forward hook with always_call failed after construct did", exc_info=True)


def _after(cell: CellHooks, hook: _ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    if hook.with_kwargs:
        return hook.function(cell, args, kwargs, output)
    return hook.function(cell, args, output)


def _replaced_arguments(
    cell: CellHooks, hook: _ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.function(cell, args)
        if changed is None:
            return args, kwargs
        return changed if isinstance(changed, tuple) else (changed,), kwargs
    changed = hook.function(cell, args, kwargs)
    if changed is None:
        return args, kwargs
    if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
        raise RuntimeError(f"a forward pre-hook with_kwargs has to return None or (args, kwargs), not {changed!r}")
    return changed[0] if isinstance(changed[0], tuple) else (changed[0],), changed[1]
