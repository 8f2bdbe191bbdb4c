"""What convolution and pooling share: padding, and views of all windows of an array.

The last `n` axes are the spatial ones. A padding is one (before, after) pair for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .promotion import Array, settled

Sizes: TypeAlias = Sequence[int]
Pads: TypeAlias = Sequence[tuple[int, int]]


def extent(kernel: int, dilation: int) -> int:
    """The number of elements from a kernel's first tap to its last."""
    return (kernel - 1) * dilation + 1


def same_padding(shape: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """The padding for which the output has ceil(n / stride) elements; the smaller half comes first."""
    pads = []
    for n, k, s, d in zip(shape, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + extent(k, d) - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def padded(x: Array, pads: Pads, value: float = 0) -> Array:
    """`x` with `value` around its spatial axes; `x` itself when nothing is added. Negative padding cuts."""
    if not any(before or after for before, after in pads):
        return x
    lead = x.ndim - len(pads)
    size = [n + before + after for n, (before, after) in zip(x.shape[lead:], pads, strict=True)]
    if min(size, default=1) < 0:
        raise ValueError(f"the padding {list(pads)} cuts more than there is in {x.shape}")
    out = np.full((*x.shape[:lead], *size), value, x.dtype) if value else np.zeros((*x.shape[:lead], *size), x.dtype)
    spans = list(zip(x.shape[lead:], pads, size, strict=True))
    inside: list[Any] = [slice(max(before, 0), total - max(after, 0)) for _, (before, after), total in spans]
    kept: list[Any] = [slice(max(-before, 0), n - max(-after, 0)) for n, (before, after), _ in spans]
    out[..., *inside] = x[..., *kept]
    return out


def windows(x: Array, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """A view (..., *positions, *kernel) of every window of the spatial axes. ValueError when a window does not fit."""
    n = len(kernel)
    reach = tuple(extent(k, d) for k, d in zip(kernel, dilation, strict=True))
    axes = tuple(range(x.ndim - n, x.ndim))
    if any(x.shape[axis] < r for axis, r in zip(axes, reach, strict=True)):
        raise ValueError(f"a window of {reach} does not fit into the (padded) input of {x.shape[-n:]}")
    view = sliding_window_view(x, reach, axis=axes)
    steps: list[Any] = [slice(None, None, step) for step in (*stride, *dilation)]
    return settled(view[..., *steps])
