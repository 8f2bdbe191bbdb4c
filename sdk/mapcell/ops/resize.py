"""Changing the size of images: interpolation, padding, moving channels into space.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

from ..common.tensor import Tensor, wrap
from ..kernels import padding as padding_kernel
from ..kernels import resize as kernel
from ._call import array, call
from .shapes import ints

_RANKS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
    "area": (1, 2, 3),
}


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """(N, C, *spatial) with its spatial axes resized to `size` or by `scale_factor`; exactly one of them is given.

    With `recompute_scale_factor` sources are computed from the rounded sizes. ValueError for an unknown mode, one that
    does not fit the rank, or `align_corners` with a mode that has no corners.
    """
    x = array(input, "interpolate")
    n = x.ndim - 2
    _check(mode, n, align_corners)
    out, scales = _target(x.shape[2:], size, scale_factor)
    used = scales if scale_factor is not None and not recompute_scale_factor else [None] * n
    return wrap(kernel.interpolate(x, out, used, mode, bool(align_corners)))


def _check(mode: str, n: int, align_corners: bool | None) -> None:
    if mode not in _RANKS:
        raise ValueError(f"interpolate: 'mode' has to be one of {', '.join(_RANKS)}, not {mode!r}")
    if n not in _RANKS[mode]:
        raise ValueError(f"interpolate: the mode {mode!r} does not go with an input of {n + 2} axes")
    if align_corners and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"interpolate: 'align_corners' does not go with the mode {mode!r}")


def _target(shape: Sequence[int], size: Any, scale_factor: Any) -> tuple[list[int], list[float | None]]:
    n = len(shape)
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either 'size' or 'scale_factor'")
    if size is not None:
        wanted = [size] * n if isinstance(size, int) else list(ints(size, "interpolate"))
        if len(wanted) != n or min(wanted) < 1:
            raise ValueError(f"interpolate: 'size' has to be {n} positive ints, but it is {size!r}")
        return wanted, [None] * n
    factors = [float(f) for f in scale_factor] if isinstance(scale_factor, tuple | list) else [float(scale_factor)] * n
    if len(factors) != n or min(factors) <= 0:
        raise ValueError(f"interpolate: 'scale_factor' has to be {n} positive numbers, but it is {scale_factor!r}")
    return [floor(s * f) for s, f in zip(shape, factors, strict=True)], list(factors)


upsample = interpolate


def pad(input_x: Tensor, padding: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """`padding` (before, after) of the last axis, then of the last but one ...; negative ones cut.

    `mode` is constant, reflect, replicate or circular; only constant takes a `value` (0). ValueError otherwise.
    """
    if mode != "constant" and value:
        raise ValueError(f"pad: a 'value' goes with the mode 'constant', not with {mode!r}")
    x = array(input_x, "pad")
    widths = padding_kernel.pairs(ints(padding, "pad"), x.ndim)
    return wrap(padding_kernel.pad(x, widths, mode, value or 0))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r^2, H, W) -> (..., C, H r, W r). ValueError when the channels cannot be divided."""
    return call(kernel.pixel_shuffle, input, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) -> (..., C r^2, H, W). ValueError when height and width cannot be divided."""
    return call(kernel.pixel_unshuffle, input, downscale_factor)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """The channels of `groups` groups interleaved. ValueError when they do not divide the channels."""
    return call(kernel.channel_shuffle, x, groups)
