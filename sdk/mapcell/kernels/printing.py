"""How a Tensor's ``repr`` shows its elements.

Floats as ``% .8e`` (Float16 ``% .4e``), BFloat16 and scalars short, integers and bools right-aligned; over 1,000
elements the first and last three of each long axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .promotion import Array, is_floating, is_integer

SUMMARISE_OVER = 1000
EDGE = 3


def value_text(a: Array) -> str:
    """The text behind ``value=``, with the blank or newline that separates it."""
    if a.size == 0:
        return "\n"
    if a.ndim == 0:
        return " " + _short(a[()])
    text = _nested(a, _formatter(a), a.size > SUMMARISE_OVER, 1)
    return (" " if a.ndim == 1 else "\n") + text


def _short(item: Any) -> str:
    if isinstance(item, bool | np.bool_):
        return str(bool(item))
    if isinstance(item, np.integer):
        return str(int(item))
    return str(item) if isinstance(item, np.complexfloating) else format(float(item), "g")


def _formatter(a: Array) -> Callable[[Any], str]:
    if a.dtype.kind == "f":
        spec = "% .4e" if a.dtype.itemsize == 2 else "% .8e"
        return lambda item: spec % item
    shown = _shown(a) if a.size > SUMMARISE_OVER else a
    texts = [_short(item) for item in shown.reshape(-1)] if _is_short(a) else []
    width = max(map(len, texts), default=0)
    return lambda item: _short(item).rjust(width)


def _is_short(a: Array) -> bool:
    return a.dtype.kind in "bc" or is_integer(a.dtype) or is_floating(a.dtype)


def _shown(a: Array) -> Array:
    for axis, size in enumerate(a.shape):
        if size > 2 * EDGE:
            a = np.concatenate([np.take(a, range(EDGE), axis), np.take(a, range(size - EDGE, size), axis)], axis)
    return a


def _nested(a: Array, text: Callable[[Any], str], summarise: bool, depth: int) -> str:
    inner = a.ndim == 1
    parts = [text(item) if inner else _nested(item, text, summarise, depth + 1) for item in _edges(a, summarise)]
    between = ", " if inner else ",\n" + " " * depth
    if not summarise or len(a) <= 2 * EDGE:
        return "[" + between.join(parts) + "]"
    gap = " ... " if inner else ",\n" + " " * depth + "...\n" + " " * depth
    return "[" + between.join(parts[:EDGE]) + gap + between.join(parts[EDGE:]) + "]"


def _edges(a: Array, summarise: bool) -> Array:
    return np.concatenate([a[:EDGE], a[-EDGE:]]) if summarise and len(a) > 2 * EDGE else a
