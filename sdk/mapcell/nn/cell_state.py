"""``state_dict`` and ``load_state_dict``: a network's state by attribute path."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..common.tensor import Tensor
from ..storage import array_of, converted, is_shared
from .cell_tree import CellTree
from .hooks import Hook, HookHandle, _add, _checked

_EXTRA = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class _StateDict(OrderedDict[str, Any]):
    """An OrderedDict that can carry `_metadata`; it prints as one."""

    _metadata: OrderedDict[str, Any]

    def __repr__(self) -> str:
        return repr(OrderedDict(self))


class CellState(CellTree):
    """A Cell's state and the hooks around it."""

    def _hooks_to_add_to(self, moment: str) -> OrderedDict[int, Hook]:
        # Made when the first one comes: few Cells have any, and a network may have thousands of Cells.
        hooks: OrderedDict[int, Hook] = self.__dict__.setdefault(f"_{moment}_hooks", OrderedDict())
        return hooks

    def _hooks_at(self, moment: str) -> tuple[Hook, ...]:
        return tuple(self.__dict__.get(f"_{moment}_hooks", {}).values())

    def register_state_dict_pre_hook(self, hook: Hook) -> HookHandle:
        """``hook(cell, prefix, keep_vars)`` runs before this Cell's part of a state dict is made."""
        return _add(self._hooks_to_add_to("state_dict_pre"), _checked(hook))

    def register_state_dict_post_hook(self, hook: Hook) -> HookHandle:
        """``hook(cell, state_dict, prefix, local_metadata) -> None`` runs after it and may change the dict in place."""
        return _add(self._hooks_to_add_to("state_dict"), _checked(hook))

    def register_load_state_dict_pre_hook(self, hook: Hook) -> HookHandle:
        """``hook(cell, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``."""
        return _add(self._hooks_to_add_to("load_state_dict_pre"), _checked(hook))

    def register_load_state_dict_post_hook(self, hook: Hook) -> HookHandle:
        """``hook(cell, incompatible_keys) -> None``, which may change the two lists in place."""
        return _add(self._hooks_to_add_to("load_state_dict_post"), _checked(hook))

    def get_extra_state(self) -> Any:
        """Override it to put more into the state dict. RuntimeError unless overridden."""
        raise RuntimeError(f"{type(self).__name__} does not define get_extra_state(), so it has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Override it to take that back. RuntimeError unless overridden."""
        raise RuntimeError(f"{type(self).__name__} does not define set_extra_state(), so it cannot take extra state")

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Any]:
        """Parameters and persistent buffers by path: the objects themselves, not copies.

        TypeError unless `destination` is a dict or None, `prefix` a str and `keep_vars` a bool.
        """
        if args:
            warnings.warn("state_dict: give 'destination', 'prefix' and 'keep_vars' by name", FutureWarning, 2)
            given = dict(zip(("destination", "prefix", "keep_vars"), args, strict=False))
            destination = given.get("destination", destination)
            prefix, keep_vars = given.get("prefix", prefix), given.get("keep_vars", keep_vars)
        _check_state_arguments(destination, prefix, keep_vars)
        out: Any = _StateDict() if destination is None else destination
        if isinstance(out, OrderedDict) and not hasattr(out, "_metadata"):
            out.__dict__["_metadata"] = OrderedDict()
        self._add_state(out, prefix, keep_vars)
        return out  # type: ignore[no-any-return]

    def _add_state(self, out: Any, prefix: str, keep_vars: bool) -> None:
        metadata: dict[str, Any] = {}
        if hasattr(out, "_metadata"):
            out._metadata[prefix[:-1]] = metadata
        for hook in self._hooks_at("state_dict_pre"):
            hook(self, prefix, keep_vars)
        out.update((prefix + name, tensor) for name, tensor in self._own_state() if tensor is not None)
        if _overrides(self, "get_extra_state"):
            out[prefix + _EXTRA] = self.get_extra_state()
        for name, child in self._cells.items():
            if child is not None:
                child._add_state(out, f"{prefix}{name}.", keep_vars)
        for hook in self._hooks_at("state_dict"):
            if hook(self, out, prefix, metadata) is not None:
                raise RuntimeError("a state_dict post hook has to return None and change the dict in place")

    def _own_state(self) -> Iterator[tuple[str, Tensor | None]]:
        yield from self._params.items()
        for name, buffer in self._buffers.items():
            if name not in self._transient_buffers:
                yield name, buffer

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> _IncompatibleKeys:
        """Copies each value to the Parameter or buffer at its path, converted to that one's dtype.

        Values of shared weights are not copied but shared. All that fits is loaded, then errors are raised.

        Raises:
            TypeError: `state_dict` is no mapping.
            RuntimeError: values of another shape or kind; if `strict`, missing or unexpected keys.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict, not {type(state_dict).__name__}")
        keys = _IncompatibleKeys([], [])
        errors: list[str] = []
        remaining = OrderedDict(state_dict)
        self._load_state(remaining, "", getattr(state_dict, "_metadata", {}), strict, keys, errors)
        for hook in self._hooks_at("load_state_dict_post"):
            if hook(self, keys) is not None:
                raise RuntimeError("a load_state_dict post hook has to return None and change the lists in place")
        _raise_errors(type(self).__name__, keys if strict else _IncompatibleKeys([], []), errors)
        return keys

    def _load_state(
        self, state: Any, prefix: str, metadata: Any, strict: bool, keys: _IncompatibleKeys, errors: list[str]
    ) -> None:
        local = metadata.get(prefix[:-1], {})
        for hook in self._hooks_at("load_state_dict_pre"):
            hook(self, state, prefix, local, strict, keys.missing_keys, keys.unexpected_keys, errors)
        own = OrderedDict(self._own_state())
        for name, target in own.items():
            _load_one(target, prefix + name, state, keys, errors)
        self._load_extra(state, prefix, keys)
        keys.unexpected_keys.extend(_unexpected(state, prefix, {*own, *self._cells, _EXTRA}))
        for name, child in self._cells.items():
            if child is not None:
                below = OrderedDict((k, v) for k, v in state.items() if k.startswith(f"{prefix}{name}."))
                child._load_state(below, f"{prefix}{name}.", metadata, strict, keys, errors)
        if prefix:
            for hook in self._hooks_at("load_state_dict_post"):
                hook(self, keys)

    def _load_extra(self, state: Any, prefix: str, keys: _IncompatibleKeys) -> None:
        overridden = _overrides(self, "set_extra_state") or _overrides(self, "get_extra_state")
        if overridden and prefix + _EXTRA in state:
            self.set_extra_state(state[prefix + _EXTRA])
        elif overridden:
            keys.missing_keys.append(prefix + _EXTRA)
        elif prefix + _EXTRA in state:
            keys.unexpected_keys.append(prefix + _EXTRA)


def _overrides(cell: CellState, method: str) -> bool:
    return getattr(type(cell), method) is not getattr(CellState, method)


def _check_state_arguments(destination: object, prefix: object, keep_vars: object) -> None:
    if destination is not None and not isinstance(destination, dict):
        raise TypeError(f"state_dict: 'destination' has to be a dict, not {type(destination).__name__}")
    if not isinstance(prefix, str):
        raise TypeError(f"state_dict: 'prefix' has to be a str, not {type(prefix).__name__}")
    if not isinstance(keep_vars, bool):
        raise TypeError(f"state_dict: 'keep_vars' has to be a bool, not {type(keep_vars).__name__}")


def _unexpected(state: Mapping[str, Any], prefix: str, known: set[str]) -> list[str]:
    """Keys below `prefix` that begin with the name of nothing here. A Parameter's name may have dots in it."""
    inside = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    return [prefix + key for key in inside if key not in known and key.split(".", 1)[0] not in known]


def _load_one(
    target: Tensor | None, key: str, state: Mapping[str, Any], keys: _IncompatibleKeys, errors: list[str]
) -> None:
    if target is None:
        if key in state:
            keys.unexpected_keys.append(key)
        return
    if key not in state:
        keys.missing_keys.append(key)
        return
    value = state[key]
    if not isinstance(value, Tensor):
        errors.append(f"{key!r} has to be a Tensor, but the value is a {type(value).__name__}.")
    elif value.shape != target.shape:
        errors.append(
            f"size mismatch for {key}: the value has the shape {value.shape}, the network has {target.shape}."
        )
    else:
        _take(target, value)


def _take(target: Tensor, value: Tensor) -> None:
    storage = converted(value._storage, target.shape, target._storage.dtype)
    if is_shared(value._storage):
        target._storage = storage
    elif storage is value._storage:
        target._storage = np.array(array_of(storage))
    else:
        target._storage = array_of(storage)


def _raise_errors(name: str, keys: _IncompatibleKeys, errors: list[str]) -> None:
    lines = list(errors)
    if keys.unexpected_keys:
        lines.insert(0, f"Unexpected key(s) in state_dict: {', '.join(map(repr, keys.unexpected_keys))}.")
    if keys.missing_keys:
        lines.insert(0, f"Missing key(s) in state_dict: {', '.join(map(repr, keys.missing_keys))}.")
    if lines:
        raise RuntimeError(f"Error(s) in loading state_dict for {name}:\n\t" + "\n\t".join(lines))
