"""Checks of what layers are made with. TypeError for a wrong type, ValueError for a wrong value."""

from __future__ import annotations

from typing import Any


def integer(value: Any, name: str, who: str, least: int | None = None) -> int:
    """`value`, which has to be an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name!r} has to be an int, not {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{who}: {name!r} has to be at least {least}, but it is {value}")
    return value


def positive(value: Any, name: str, who: str) -> int:
    """`value`, which has to be an int of at least 1."""
    # Every layer asks several times, and almost always it is one.
    if type(value) is int and value > 0:
        return value
    return integer(value, name, who, 1)


def boolean(value: Any, name: str, who: str) -> bool:
    """`value`, which has to be a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{who}: {name!r} has to be a bool, not {type(value).__name__}")
    return value


def number(value: Any, name: str, who: str, low: float, high: float) -> float:
    """`value`, which has to be an int or float within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{who}: {name!r} has to be a number, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{who}: {name!r} has to be within [{low}, {high}], but it is {value}")
    return value


def option(value: Any, name: str, who: str, allowed: tuple[str, ...]) -> str:
    """`value`, which has to be one of `allowed`."""
    if not isinstance(value, str):
        raise TypeError(f"{who}: {name!r} has to be a str, not {type(value).__name__}")
    if value not in allowed:
        raise ValueError(f"{who}: {name!r} has to be one of {', '.join(allowed)}, not {value!r}")
    return value
