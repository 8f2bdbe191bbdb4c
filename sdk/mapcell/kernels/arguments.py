"""Window arguments as users spell them (an int, or a tuple) as tuples of ints. Errors name the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .windows import Sizes, same_padding

PAD_MODES = ("same", "valid", "pad")


def sizes(value: Any, n: int, name: str, least: int = 1) -> tuple[int, ...]:
    """`n` ints of at least `least`, given as one int for all or a tuple of one or `n`. TypeError, ValueError."""
    given = value if isinstance(value, tuple | list) else (value,)
    if any(isinstance(item, bool) or not isinstance(item, int) for item in given):
        raise TypeError(f"'{name}' has to be an int or a tuple of ints, not {value!r}")
    if len(given) not in (1, n):
        raise ValueError(f"'{name}' has to be an int or a tuple of {n} ints, but it is {value!r}")
    if any(item < least for item in given):
        raise ValueError(f"'{name}' has to be at least {least}, but it is {value!r}")
    return tuple(given) * (n // len(given) if len(given) == 1 else 1)


def symmetric(value: Any, n: int, name: str = "padding") -> tuple[tuple[int, int], ...]:
    """Padding as an int or one int for each axis: the same before and after."""
    return tuple((p, p) for p in sizes(value, n, name, 0))


def sided(value: Any, n: int, name: str = "padding") -> tuple[tuple[int, int], ...]:
    """Padding as an int, or a tuple with (before, after) of each axis one after another."""
    if isinstance(value, int):
        return symmetric(value, n, name)
    flat = sizes(value, 2 * n, name, 0)
    return tuple((flat[2 * i], flat[2 * i + 1]) for i in range(n))


def either(value: Any, n: int, name: str = "padding") -> tuple[tuple[int, int], ...]:
    """Padding as `symmetric` or `sided` take it."""
    full = isinstance(value, tuple | list) and len(value) == 2 * n
    return sided(value, n, name) if full else symmetric(value, n, name)


def pad_mode(value: Any, allowed: Sequence[str] = PAD_MODES) -> str:
    """A padding mode in lower case. ValueError for an unknown one, TypeError unless a str."""
    if not isinstance(value, str):
        raise TypeError(f"'pad_mode' has to be a str, not {type(value).__name__}")
    if value.lower() not in allowed:
        raise ValueError(f"'pad_mode' has to be one of {', '.join(allowed)}, not {value!r}")
    return value.lower()


def pads_of(
    mode: str, padding: Sequence[tuple[int, int]], shape: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes
) -> Sequence[tuple[int, int]]:
    """The padding that a mode means for spatial axes of `shape`."""
    match mode:
        case "same":
            return same_padding(shape, kernel, stride, dilation)
        case "valid":
            return ((0, 0),) * len(kernel)
        case _:
            return padding


def no_padding_unless_pad(mode: str, padding: Sequence[tuple[int, int]]) -> None:
    """ValueError when there is padding in another mode than "pad"."""
    if mode != "pad" and any(p for pair in padding for p in pair):
        raise ValueError(f"'padding' has to be 0 when 'pad_mode' is {mode!r}, but it is {list(padding)}")
