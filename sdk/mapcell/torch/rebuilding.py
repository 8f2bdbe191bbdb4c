"""Buffers that no checkpoint holds, made again for a module that was built on the meta device.

Such a buffer is a table that the constructor computes: positions, frequencies, masks. Two ways lead to it, and both are
checked before they are believed. transformers' models say how to fill them (``_init_weights``): it has to write every
element, told by filling the buffer twice with different bytes. Other modules are built once more, if every argument of
their constructor is to be found on them under its name, and what comes out has the same attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from .building import no_init_parameters

Buffers = dict[str, torch.Tensor]

# Arguments that say nothing about a table's elements.
_PLACING = ("device", "dtype")
_PLAIN = (bool, int, float, str, tuple, type(None))


def lost_buffers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, list[str]]]:
    """(path, submodule, names) of buffers on the meta device that no state dict has."""
    for path, part in module.named_modules():
        names = [n for n in part._non_persistent_buffers_set if (b := part._buffers.get(n)) is not None and b.is_meta]
        if names:
            yield path, part, sorted(names)


def rebuilt(module: torch.nn.Module) -> tuple[list[tuple[torch.nn.Module, Buffers]], list[str]]:
    """The lost buffers of `module` with the submodules they belong to, and the names of those that cannot be made.

    Nothing is changed yet.
    """
    made, failed = [], []
    for path, part, names in lost_buffers(module):
        found = _initialised(module, path, part, names) or _constructed(part, names)
        if found is None:
            failed += [f"{path}.{name}".lstrip(".") for name in names]
        else:
            made.append((part, found))
    return made, failed


def _initialised(module: torch.nn.Module, path: str, part: torch.nn.Module, names: list[str]) -> Buffers | None:
    # Parameters that are bound already would be initialised, too.
    if any(not p.is_meta for p in part.parameters(recurse=False)):
        return None
    for owner in _owners(module, path):
        initialise = getattr(owner, "_init_weights", None)
        if callable(initialise):
            first, second = (_filled(initialise, part, names, byte) for byte in (0x00, 0xFF))
            if first is not None and second is not None and all(_same(first[n], second[n]) for n in names):
                return first
    return None


def _owners(module: torch.nn.Module, path: str) -> Iterator[torch.nn.Module]:
    """The submodule at `path` and those that it is in, the nearest first."""
    while path:
        yield module.get_submodule(path)
        path = path.rpartition(".")[0]
    yield module


def _filled(initialise: Any, part: torch.nn.Module, names: list[str], byte: int) -> Buffers | None:
    lost = {name: part._buffers[name] for name in names}
    try:
        for name, buffer in lost.items():
            assert buffer is not None
            blank = torch.empty_like(buffer, device="cpu", memory_format=torch.contiguous_format)
            blank.reshape(-1).view(torch.uint8).fill_(byte)
            part._buffers[name] = blank
        with torch.device("cpu"), torch.no_grad(), torch.random.fork_rng(devices=[]):
            initialise(part)
        return {name: part.get_buffer(name) for name in names}
    # Somebody else's code, which may not be meant for this part: then it is no way to its buffers.
    except Exception:
        return None
    finally:
        part._buffers.update(lost)


def _constructed(part: torch.nn.Module, names: list[str]) -> Buffers | None:
    try:
        arguments = _arguments(part)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), no_init_parameters():
            twin = type(part)(**arguments)
        buffers = {name: twin.get_buffer(name) for name in names}
    # Somebody else's constructor, given what it may not expect: then it is no way to the buffers.
    except Exception:
        return None
    if not _alike(part, twin) or any(b.is_meta or not _fits(part._buffers[n], b) for n, b in buffers.items()):
        return None
    return buffers


def _arguments(part: torch.nn.Module) -> dict[str, Any]:
    """The constructor's arguments, as attributes of the same names. LookupError when one is not to be found."""
    found = {}
    for name, parameter in inspect.signature(type(part)).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise LookupError(name)
        if name in _PLACING and parameter.default is not parameter.empty:
            continue
        if not hasattr(part, name):
            raise LookupError(name)
        found[name] = getattr(part, name)
    return found


def _alike(part: torch.nn.Module, twin: torch.nn.Module) -> bool:
    plain = {name: value for name, value in vars(part).items() if type(value) in _PLAIN and name != "training"}
    return all(name in vars(twin) and vars(twin)[name] == value for name, value in plain.items())


def _fits(lost: torch.Tensor | None, buffer: torch.Tensor) -> bool:
    return lost is not None and lost.shape == buffer.shape and lost.dtype == buffer.dtype


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    a, b = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(a, b)
