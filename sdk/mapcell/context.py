"""MindSpore's context: accepted, checked and kept, since everything here is eager, on the CPU and in one process.

`set_context` and `set_device` change nothing that is computed; asking with `get_context` gives back what was set.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

GRAPH_MODE = 0
PYNATIVE_MODE = 1

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS: MappingProxyType[str, Any] = MappingProxyType(
    {"mode": PYNATIVE_MODE, "device_target": "CPU", "device_id": 0, "max_call_depth": 1000, "save_graphs": False}
)
_settings: ContextVar[MappingProxyType[str, Any]] = ContextVar("mapcell_context", default=_DEFAULTS)


def set_context(mode: int | None = None, **kwargs: Any) -> None:
    """Keeps settings. ValueError for a mode that is neither GRAPH_MODE nor PYNATIVE_MODE."""
    if mode is not None:
        if mode not in (GRAPH_MODE, PYNATIVE_MODE):
            raise ValueError(f"set_context: 'mode' is GRAPH_MODE (0) or PYNATIVE_MODE (1), not {mode!r}")
        kwargs["mode"] = mode
    _settings.set(MappingProxyType({**_settings.get(), **kwargs}))


def get_context(attr_key: str) -> Any:
    """A setting. ValueError for one that was never set."""
    settings = _settings.get()
    if attr_key not in settings:
        raise ValueError(f"get_context: {attr_key!r} is not set; known: {', '.join(sorted(settings))}")
    return settings[attr_key]


def set_device(device_target: str, device_id: int | None = None) -> None:
    """Keeps the device. TypeError unless the target is a str and the id an int, ValueError for an unknown target."""
    if not isinstance(device_target, str):
        raise TypeError(f"set_device: 'device_target' has to be a str, not {type(device_target).__name__}")
    if device_target not in ("CPU", "GPU", "Ascend"):
        raise ValueError(f"set_device: 'device_target' is 'CPU', 'GPU' or 'Ascend', not {device_target!r}")
    if device_id is not None and (isinstance(device_id, bool) or not isinstance(device_id, int)):
        raise TypeError(f"set_device: 'device_id' has to be an int, not {type(device_id).__name__}")
    set_context(device_target=device_target, device_id=device_id or 0)


def set_auto_parallel_context(**kwargs: Any) -> None:
    """Accepts anything: there is one process."""


def reset_auto_parallel_context() -> None:
    """Does nothing: there is one process."""


class ParallelMode:
    """The names of the ways to divide work; here it is never divided."""

    STAND_ALONE = "stand_alone"
    DATA_PARALLEL = "data_parallel"
    HYBRID_PARALLEL = "hybrid_parallel"
    SEMI_AUTO_PARALLEL = "semi_auto_parallel"
    AUTO_PARALLEL = "auto_parallel"
    MODE_LIST = (STAND_ALONE, DATA_PARALLEL, HYBRID_PARALLEL, SEMI_AUTO_PARALLEL, AUTO_PARALLEL)


_ALONE: MappingProxyType[str, Any] = MappingProxyType(
    {"device_num": 1, "global_rank": 0, "gradients_mean": False, "parallel_mode": ParallelMode.STAND_ALONE}
)


def get_auto_parallel_context(attr_key: str) -> Any:
    """What holds for a process alone. ValueError for an unknown name."""
    if attr_key not in _ALONE:
        raise ValueError(f"get_auto_parallel_context: {attr_key!r} is not known; known: {', '.join(sorted(_ALONE))}")
    return _ALONE[attr_key]


class JitConfig:
    """How a graph would be compiled; kept by `Cell.set_jit_config`. ValueError for an unknown level or mode."""

    def __init__(self, jit_level: str = "", exc_mode: str = "auto", jit_syntax_level: str = "", **kwargs: Any) -> None:
        if jit_level not in ("", "O0", "O1", "O2"):
            raise ValueError(f"JitConfig: 'jit_level' is 'O0', 'O1' or 'O2', not {jit_level!r}")
        if exc_mode not in ("auto", "sink", "no_sink"):
            raise ValueError(f"JitConfig: 'exc_mode' is 'auto', 'sink' or 'no_sink', not {exc_mode!r}")
        if jit_syntax_level not in ("", "STRICT", "LAX"):
            raise ValueError(f"JitConfig: 'jit_syntax_level' is 'STRICT' or 'LAX', not {jit_syntax_level!r}")
        self.jit_config_dict: dict[str, Any] = {
            "jit_level": jit_level,
            "exc_mode": exc_mode,
            "jit_syntax_level": jit_syntax_level,
            **kwargs,
        }


def lazy_inline(fn: F | None = None, attrs: Any = None, policy: Any = None) -> Any:
    """A decorator for a Cell's ``__init__`` that changes nothing: there is no graph to inline into."""
    del attrs, policy
    return (lambda decorated: decorated) if fn is None else fn


def jit(function: F | None = None, **options: Any) -> Any:
    """A decorator that changes nothing: everything is eager."""
    del options
    return (lambda decorated: decorated) if function is None else function


# The name of `jit` in older versions.
ms_function = jit


def no_inline(fn: F | None = None) -> Any:
    """A decorator that changes nothing: there is no graph to inline into."""
    return (lambda decorated: decorated) if fn is None else fn


def constexpr(fn: F | None = None, get_instance: bool = True, name: str | None = None, **options: Any) -> Any:
    """A decorator that changes nothing: everything is computed when it is called."""
    del get_instance, name, options
    return (lambda decorated: decorated) if fn is None else fn


def mutable(input_data: Any, dynamic_len: bool = False) -> Any:
    """`input_data` itself: nothing is compiled for constants."""
    del dynamic_len
    return input_data


def recompute(block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``block(*args, **kwargs)``: what it keeps for gradients is kept."""
    return block(*args, **kwargs)


def jit_class(cls: type) -> type:
    """A class decorator that changes nothing: everything is eager."""
    return cls
