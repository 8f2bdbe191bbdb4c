"""Changing the size of the spatial axes (the last ones), one axis after the other.

Each output element is a weighted sum of a few input elements along an axis: `Taps` says which, and their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .half import in_float32
from .pool import adaptive_avg_pool
from .promotion import Array, settled


@dataclass(frozen=True, slots=True)
class Taps:
    """For each output element the positions (out, taps) of its input elements, and their weights, None for 1."""

    positions: Array
    weights: Array | None


def _sources(size: int, out: int, scale: float | None, align_corners: bool, half_pixel: bool) -> Array:
    """Where each output element's centre lies among the input elements."""
    i = np.arange(out, dtype=np.float64)
    if align_corners:
        return settled(i * ((size - 1) / (out - 1) if out > 1 else 0.0))
    step = 1 / scale if scale else size / out
    return settled((i + 0.5) * step - 0.5 if half_pixel else i * step)


def nearest(size: int, out: int, scale: float | None, exact: bool = False) -> Taps:
    """The element at or before each source, or (exact) the nearest to its centre."""
    step = 1 / scale if scale else size / out
    at = np.floor((np.arange(out) + (0.5 if exact else 0.0)) * np.float32(step))
    return Taps(np.clip(at.astype(np.int64), 0, size - 1)[:, None], None)


def nearest_aligned(size: int, out: int) -> Taps:
    """The element nearest to each source, the first and the last ones falling on each other."""
    source = _sources(size, out, None, True, False)
    return Taps(np.floor(source + 0.5).astype(np.int64)[:, None], None)


def linear(size: int, out: int, scale: float | None, align_corners: bool, half_pixel: bool = True) -> Taps:
    """The two elements around each source, weighted by their distance."""
    source = np.maximum(_sources(size, out, scale, align_corners, half_pixel), 0)
    low = np.minimum(np.floor(source).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    part = source - low
    return Taps(np.stack([low, high], axis=1), np.stack([1 - part, part], axis=1))


def cubic(size: int, out: int, scale: float | None, align_corners: bool) -> Taps:
    """The four elements around each source, weighted by the cubic convolution kernel.

    Like MindSpore: with corners aligned the kernel's parameter is -0.75 and the ends are repeated; else it is -0.5, and
    what lies outside has no weight. The distances are multiples of 1/1024.
    """
    source = _sources(size, out, scale, align_corners, True)
    low = np.floor(source)
    part = np.rint((source - low) * 1024) / 1024
    positions = low[:, None].astype(np.int64) + np.arange(-1, 3)
    weights = _cubic_kernel(np.abs(part[:, None] - np.arange(-1, 3)), -0.75 if align_corners else -0.5)
    if not align_corners:
        weights = np.where((positions < 0) | (positions >= size), 0, weights)
        weights /= weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(positions, 0, size - 1), weights)


def _cubic_kernel(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, far)


@in_float32
def resample(x: Array, taps: Sequence[Taps | None]) -> Array:
    """`x` with each of its last axes replaced by the weighted sums that `taps` names; None keeps an axis."""
    out = x
    for i, tap in enumerate(taps):
        if tap is not None:
            out = _along(out, x.ndim - len(taps) + i, tap)
    return out if out.flags.c_contiguous else out.copy()


def _along(x: Array, axis: int, taps: Taps) -> Array:
    if taps.weights is None:
        return settled(np.take(x, taps.positions[:, 0], axis=axis))
    picked = np.take(np.moveaxis(x, axis, -1), taps.positions, axis=-1)
    return np.moveaxis(np.einsum("...ot,ot->...o", picked, taps.weights.astype(x.dtype)), -1, axis)


def interpolate(
    x: Array,
    out: Sequence[int],
    scales: Sequence[float | None],
    mode: str,
    align_corners: bool = False,
) -> Array:
    """`x` (N, C, *spatial) with spatial axes of the sizes `out`. ValueError for an unknown mode.

    `scales` are the factors that sources are computed with; None takes the ratio of the sizes.
    """
    axes = list(zip(x.shape[2:], out, scales, strict=True))
    match mode:
        case "nearest" | "nearest-exact":
            return resample(x, [nearest(n, o, s, mode != "nearest") for n, o, s in axes])
        case "linear" | "bilinear" | "trilinear":
            return resample(x, [linear(n, o, s, align_corners) for n, o, s in axes])
        case "bicubic":
            return resample(x, [cubic(n, o, s, align_corners) for n, o, s in axes])
        case "area":
            return adaptive_avg_pool(x, out)
        case _:
            raise ValueError(f"interpolate: 'mode' {mode!r} is not known")


def pixel_shuffle(x: Array, factor: int) -> Array:
    """(..., C r^2, H, W) -> (..., C, H r, W r). ValueError when r^2 does not divide the channels."""
    *lead, channels, height, width = x.shape
    if channels % factor**2:
        raise ValueError(f"pixel_shuffle: {channels} channels cannot be divided by the square of {factor}")
    parts = x.reshape(*lead, channels // factor**2, factor, factor, height, width)
    n = len(lead)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return parts.transpose(order).reshape(*lead, channels // factor**2, height * factor, width * factor)


def pixel_unshuffle(x: Array, factor: int) -> Array:
    """(..., C, H r, W r) -> (..., C r^2, H, W). ValueError when r does not divide height and width."""
    *lead, channels, height, width = x.shape
    if height % factor or width % factor:
        raise ValueError(f"pixel_unshuffle: {factor} does not divide {height} x {width}")
    parts = x.reshape(*lead, channels, height // factor, factor, width // factor, factor)
    n = len(lead)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return parts.transpose(order).reshape(*lead, channels * factor**2, height // factor, width // factor)


def channel_shuffle(x: Array, groups: int) -> Array:
    """Channels (axis 1) of `groups` groups interleaved. ValueError when they do not divide the channels."""
    if x.shape[1] % groups:
        raise ValueError(f"channel_shuffle: {groups} groups do not divide {x.shape[1]} channels")
    parts = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    return parts.swapaxes(1, 2).reshape(x.shape)
