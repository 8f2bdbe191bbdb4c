"""Normalisation and dropout.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.tensor import Tensor, wrap
from ..kernels import norm as kernel
from ..kernels.promotion import Array
from ._call import array, maybe


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises over the last axes, which have to have `normalized_shape` (ValueError), times weight plus bias."""
    x = array(input, "layer_norm")
    shape = tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: an input of {x.shape} does not end in {shape}")
    return wrap(kernel.layer_norm(x, maybe(weight, "layer_norm"), maybe(bias, "layer_norm"), len(shape), eps)[0])


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalises each of `num_groups` groups of channels (axis 1). ValueError when they do not divide the channels."""
    x = array(input, "group_norm")
    if x.ndim < 2 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: {num_groups} groups do not divide axis 1 of {x.shape}")
    return wrap(kernel.group_norm(x, num_groups, maybe(weight, "group_norm"), maybe(bias, "group_norm"), eps)[0])


def batch_norm(
    input_x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises every channel (axis 1) by the given statistics, or (training) by its own; `momentum` is not used."""
    del momentum
    x = array(input_x, "batch_norm")
    mean, var = maybe(running_mean, "batch_norm"), maybe(running_var, "batch_norm")
    if training or mean is None or var is None:
        mean, var = kernel.channel_statistics(x)
    return wrap(kernel.scale_and_shift(x, mean, var, maybe(weight, "batch_norm"), maybe(bias, "batch_norm"), eps))


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + epsilon) * gamma over the axes of gamma, and 1 / sqrt(...). ValueError: no fit."""
    source, scale = array(x, "rms_norm"), array(gamma, "rms_norm")
    if scale.ndim == 0 or source.shape[-scale.ndim :] != scale.shape:
        raise ValueError(f"rms_norm: an input of {source.shape} does not end in the shape of gamma, {scale.shape}")
    out, rstd = kernel.rms_norm(source, scale, epsilon)
    return wrap(out), wrap(rstd)


def lrn(
    x: Tensor,
    depth_radius: int = 5,
    bias: float = 1.0,
    alpha: float = 1.0,
    beta: float = 0.5,
    norm_region: str = "ACROSS_CHANNELS",
) -> Tensor:
    """x / (bias + alpha * sum of squares over neighbouring channels) ** beta. ValueError for another region."""
    if norm_region != "ACROSS_CHANNELS":
        raise ValueError(f"lrn: 'norm_region' has to be 'ACROSS_CHANNELS', not {norm_region!r}")
    return wrap(kernel.local_response_norm(array(x, "lrn"), depth_radius, bias, alpha, beta))


def l2_normalize(x: Tensor, axis: int = -1, epsilon: float = 1e-4) -> Tensor:
    """x divided by its 2-norm along `axis`."""
    return wrap(kernel.l2_normalize(array(x, "l2_normalize"), axis, epsilon))


def _dropped(x: Array, p: float, kept_shape: tuple[int, ...]) -> Array:
    keep = np.random.random_sample(kept_shape) >= p
    return np.where(keep, x / np.asarray(1 - p, x.dtype) if p < 1 else x, np.zeros((), x.dtype)).astype(x.dtype)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, seed: int | None = None) -> Tensor:
    """In training zeroes each element with probability `p` and scales the others. ValueError unless 0 <= p <= 1."""
    del seed
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: 'p' has to be within [0, 1], but it is {p}")
    x = array(input, "dropout")
    return wrap(_dropped(x, p, x.shape)) if training and p else input


def _channel_dropout(input: Tensor, p: float, training: bool) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: 'p' has to be within [0, 1], but it is {p}")
    x = array(input, "dropout")
    return wrap(_dropped(x, p, (*x.shape[:2], *(1,) * (x.ndim - 2)))) if training and p else input


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, for whole channels of (N, C, L)."""
    return _channel_dropout(input, p, training)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, for whole channels of (N, C, H, W)."""
    return _channel_dropout(input, p, training)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, for whole channels of (N, C, D, H, W)."""
    return _channel_dropout(input, p, training)
