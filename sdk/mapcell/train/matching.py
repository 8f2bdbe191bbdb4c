"""``load_param_into_net``: which of a checkpoint's tensors goes to which Parameter of a network.

A Parameter is looked up by its own name. What is then missing is sought under a common prefix: if some key of the
checkpoint ends with ".NAME", what stands before NAME is the prefix, and all missing names that occur behind it are
taken from there. Nothing is changed before everything was found to fit.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.load_param_into_net.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mapcell_formats.manifest import near

from ..common.parameter import Parameter
from ..fitting import dtype_fault, fitted, listed, shape_fault, shape_fits
from ..log import warn
from ..nn.cell import Cell
from ..storage import Storage

# Names of accumulated gradients, which no checkpoint for inference has.
_IGNORED_PREFIX = "accu_grads"
_NEAR_NAMES_FOR = 5


def load_param_into_net(
    net: Cell, parameter_dict: Mapping[str, Any], strict_load: bool = False, remove_redundancy: bool = False
) -> tuple[list[str], list[str]]:
    """Gives the Parameters of `net` the elements of those in `parameter_dict`, shared where the dtype is the same.

    Args:
        parameter_dict: names and Parameters (or strings, which are passed over), as from ``load_checkpoint``.
        strict_load: neither converts dtypes nor seeks missing names under a prefix.
        remove_redundancy: for clusters; False.

    Returns:
        The names of Parameters of `net` that were not loaded, and the keys that were not used under their own name.

    Raises:
        TypeError: an argument of another type.
        RuntimeError: shapes or dtypes that do not fit; all of them are listed, and nothing was changed.
    """
    _check_arguments(net, parameter_dict, strict_load, remove_redundancy)
    matches, missing, unused = match(list(net.get_parameters()), parameter_dict, strict_load)
    check_matches(matches, strict_load)
    storages = fitted([(parameter, storage) for parameter, _, storage in matches])
    for (parameter, _, _), storage in zip(matches, storages, strict=True):
        parameter._storage = storage
    _report(missing, unused)
    return missing, unused


Match = tuple[Parameter, str, Storage]


def match(
    parameters: Iterable[Parameter], given: Mapping[str, Any], strict: bool
) -> tuple[list[Match], list[str], list[str]]:
    """(Parameter, key, storage) of all that were found, the names that were not, and the keys that were not used."""
    found: list[Match] = []
    missing: list[Parameter] = []
    for parameter in parameters:
        value = given.get(parameter.name)
        if isinstance(value, Parameter):
            found.append((parameter, parameter.name, value._storage))
        elif not parameter.name.startswith(_IGNORED_PREFIX):
            missing.append(parameter)
    used = {key for _, key, _ in found}
    if missing and not strict:
        behind = _behind_prefixes(missing, given)
        found += behind
        loaded = {id(parameter) for parameter, _, _ in behind}
        missing = [p for p in missing if id(p) not in loaded]
    return found, [p.name for p in missing], [key for key in given if key not in used]


def _behind_prefixes(missing: list[Parameter], given: Mapping[str, Any]) -> list[Match]:
    endings = _keys_by_ending(given)
    found: list[Match] = []
    tried: set[str] = set()
    remaining = {id(p): p for p in missing}
    for parameter in missing:
        for key in endings.get(parameter.name, ()):
            prefix = key[: -len(parameter.name)]
            if id(parameter) not in remaining or prefix in tried:
                continue
            tried.add(prefix)
            taken = _behind(prefix, remaining.values(), given)
            if taken:
                warn("%d parameters were found behind the prefix %r and loaded from there", len(taken), prefix)
            found += taken
            for p, _, _ in taken:
                del remaining[id(p)]
    return found


def _behind(prefix: str, missing: Iterable[Parameter], given: Mapping[str, Any]) -> list[Match]:
    candidates = [(p, prefix + p.name, given.get(prefix + p.name)) for p in missing]
    return [
        (p, key, value._storage)
        for p, key, value in candidates
        if isinstance(value, Parameter) and shape_fits(value.shape, p.shape)
    ]


def _keys_by_ending(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every part of a key that follows a dot, and the keys that end with it, in their order."""
    out: dict[str, list[str]] = {}
    for key in given:
        dot = key.find(".")
        while dot >= 0:
            out.setdefault(key[dot + 1 :], []).append(key)
            dot = key.find(".", dot + 1)
    return out


def check_matches(matches: Iterable[Match], strict: bool) -> None:
    """RuntimeError that lists every shape and dtype that does not fit."""
    faults = []
    for parameter, key, storage in matches:
        wrong_shape = shape_fault(key, storage, parameter)
        wrong_dtype = dtype_fault(key, storage, parameter, strict)
        if wrong_shape:
            faults.append(f"{wrong_shape}; both should have the same shape")
        elif wrong_dtype:
            faults.append(f"{wrong_dtype}; both should have the same type")
    if faults:
        raise RuntimeError(
            "load_param_into_net: the checkpoint does not fit the network, and nothing was loaded:\n  "
            + "\n  ".join(faults)
        )


def _check_arguments(net: object, parameter_dict: object, strict_load: object, remove_redundancy: object) -> None:
    if not isinstance(net, Cell):
        raise TypeError(f"load_param_into_net: 'net' has to be a Cell, not {type(net).__name__}")
    if not isinstance(parameter_dict, dict):
        raise TypeError(f"load_param_into_net: 'parameter_dict' has to be a dict, not {type(parameter_dict).__name__}")
    if not isinstance(strict_load, bool):
        raise TypeError(f"load_param_into_net: 'strict_load' has to be a bool, not {type(strict_load).__name__}")
    if not isinstance(remove_redundancy, bool):
        raise TypeError(f"load_param_into_net: 'remove_redundancy' has to be a bool, not {remove_redundancy!r}")
    if remove_redundancy:
        raise TypeError("load_param_into_net: 'remove_redundancy' is for clusters; there is one process here")
    for key, value in parameter_dict.items():
        if not isinstance(key, str):
            raise TypeError(f"load_param_into_net: the names have to be str, not {type(key).__name__}")
        if not isinstance(value, Parameter | str | list):
            raise TypeError(f"load_param_into_net: {key!r} has to be a Parameter, not {type(value).__name__}")


def _report(missing: list[str], unused: list[str]) -> None:
    if not missing:
        return
    hints = "".join(f"; {name!r}{near(name, unused)}" for name in missing[:_NEAR_NAMES_FOR] if near(name, unused))
    warn("%d parameters of the network were not loaded: %s%s", len(missing), listed(missing), hints)
