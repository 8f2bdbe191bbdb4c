"""Attributes of a Parameter that mean something to graphs, clusters or servers only: checked and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mapcell_formats.record import Record


def bool_(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"Parameter: {name!r} has to be a bool, not {type(value).__name__}")


def int_(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Parameter: {name!r} has to be an int, not {type(value).__name__}")


def fusion(value: object, name: str) -> None:
    int_(value, name)
    if value < 0:  # type: ignore[operator]
        raise ValueError(f"Parameter: {name!r} has to be at least 0, but it is {value}")


def sequence(value: object, name: str) -> None:
    if not isinstance(value, tuple | list):
        raise TypeError(f"Parameter: {name!r} has to be a tuple or list, not {type(value).__name__}")


def anything(value: object, name: str) -> None:
    del value, name


class Kept:
    """An attribute that only graphs, clusters or servers use: checked and kept, in the instance's dict."""

    def __init__(self, default: Callable[[], Any], check: Callable[[object, str], None]) -> None:
        self._default = default
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        return instance.__dict__.get(self._name, self._default())

    def __set__(self, instance: Any, value: object) -> None:
        self._check(value, self._name)
        instance.__dict__[self._name] = value


class ParamInfo(Record):
    """What MindSpore keeps of a Parameter beside its elements, as it was when asked for."""

    name: str
    requires_grad: bool
    layerwise_parallel: bool
    parallel_optimizer: bool
    comm_fusion: int
    cache_enable: bool
    parameter_shape: tuple[int, ...]
    storage_format: str = ""
    is_pipeline_shared_param: bool = False
