"""Values around an array. A flat padding is (before, after) of the last axis, then of the last but one, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .promotion import Array, settled

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def pairs(padding: Sequence[int], ndim: int) -> list[tuple[int, int]]:
    """The flat padding as (before, after) pairs, one for each axis, the first axis first. ValueError: no fit."""
    if len(padding) % 2 or len(padding) > 2 * ndim:
        raise ValueError(f"pad: 'padding' {tuple(padding)} needs two ints for each of at most {ndim} axes")
    given = [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)]
    return [(0, 0)] * (ndim - len(given)) + given[::-1]


def pad(a: Array, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0) -> Array:
    """`a` with (before, after) elements around each axis; negative ones cut. ValueError for an unknown mode."""
    if mode != "constant" and mode not in NUMPY_MODES:
        raise ValueError(f"pad: 'mode' has to be constant, {', '.join(NUMPY_MODES)}, not {mode!r}")
    cut: Any = tuple(
        slice(max(-before, 0), size - max(-after, 0)) for size, (before, after) in zip(a.shape, widths, strict=True)
    )
    grow = [(max(before, 0), max(after, 0)) for before, after in widths]
    inner = a[cut]
    if mode == "constant":
        return np.pad(inner, grow, constant_values=settled(value).astype(a.dtype))
    if mode == "reflect" and any(max(w) >= n for w, n in zip(grow, inner.shape, strict=True) if max(w)):
        raise ValueError(f"pad: reflecting {grow} needs more elements than {inner.shape} has")
    return np.pad(inner, grow, NUMPY_MODES[mode])  # type: ignore[call-overload,no-any-return]
