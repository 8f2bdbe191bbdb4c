"""Normalising layers. Shapes stay as they are.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..common.dtype import Type, float32
from ..common.initialised import initialised
from ..common.parameter import Parameter
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import norm as kernel
from ..kernels.promotion import Array, cast
from ..kernels.recorded import elements
from .cell import Cell
from .checks import number, positive


class _Statistics(Cell):
    """The four Parameters of one value for each channel, and their repr."""

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float,
        affine: bool,
        gamma_init: Any,
        beta_init: Any,
        moving_mean_init: Any,
        moving_var_init: Any,
        dtype: Type,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        self.num_features = positive(num_features, "num_features", who)
        self.eps = eps
        self.momentum = number(momentum, "momentum", who, 0, 1)
        self.affine = affine
        self.moving_mean = _per_channel(moving_mean_init, num_features, dtype, "mean", False)
        self.moving_variance = _per_channel(moving_var_init, num_features, dtype, "variance", False)
        self.gamma = _per_channel(gamma_init, num_features, dtype, "gamma", affine)
        self.beta = _per_channel(beta_init, num_features, dtype, "beta", affine)

    def extend_repr(self) -> str:
        return (
            f"num_features={self.num_features}, eps={self.eps}, momentum={self.momentum}, gamma={self.gamma}, "
            f"beta={self.beta}, moving_mean={self.moving_mean}, moving_variance={self.moving_variance}"
        )


def _per_channel(init: Any, channels: int, dtype: Type, name: str, requires_grad: bool) -> Parameter:
    return initialised(init, [channels], dtype, name=name, requires_grad=requires_grad)


class _BatchNorm(_Statistics):
    """Normalises every channel (axis 1) over the batch and all positions, times gamma plus beta.

    In training, or with `use_batch_statistics`, by the input's own statistics, which then also move the kept ones:
    `momentum` is the weight of their old values. Else by the kept ones.

    Raises:
        TypeError, ValueError: arguments out of range; at the call an input of another rank or number of channels.
    """

    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        moving_mean_init: Any = "zeros",
        moving_var_init: Any = "ones",
        use_batch_statistics: bool | None = None,
        data_format: str = "NCHW",
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, gamma_init, beta_init, moving_mean_init, moving_var_init, dtype
        )
        if data_format != "NCHW":
            raise ValueError(f"{type(self).__name__}: the data format {data_format!r} is not supported on a CPU")
        self.use_batch_statistics = use_batch_statistics

    def construct(self, x: Tensor) -> Tensor:
        who = type(self).__name__
        if x.ndim not in self.ranks:
            raise ValueError(f"{who}: the input has to have {self.ranks} axes, but its shape is {x.shape}")
        if x.shape[1] != self.num_features:
            raise ValueError(f"{who}: the input has {x.shape[1]} channels, but the layer takes {self.num_features}")
        own = self.training if self.use_batch_statistics is None else self.use_batch_statistics
        if not own:
            return ops.batch_norm(x, self.moving_mean, self.moving_variance, self.gamma, self.beta, eps=self.eps)
        array = unwrap(x)
        mean, var = kernel.channel_statistics(array)
        self._move(mean, var, array.size // self.num_features)
        return wrap(kernel.scale_and_shift(array, mean, var, unwrap(self.gamma), unwrap(self.beta), self.eps))

    def _move(self, mean: Array, var: Array, count: int) -> None:
        unbiased = var * (count / max(count - 1, 1))
        for name, new in (("moving_mean", elements(mean)), ("moving_variance", elements(unbiased))):
            kept: Parameter = self.__dict__["_params"][name]
            moved = unwrap(kept) * self.momentum + new * (1 - self.momentum)
            kept.set_data(wrap(cast(np.asarray(moved), kept.dtype.numpy)))


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L). See `_BatchNorm`."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W). See `_BatchNorm`."""

    ranks = (4,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of (N, C), (N, C, L) or (N, C, H, W); in one process there is nothing to synchronise."""

    ranks = (2, 3, 4)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        moving_mean_init: Any = "zeros",
        moving_var_init: Any = "ones",
        use_batch_statistics: bool | None = None,
        process_groups: Any = None,
        dtype: Type = float32,
    ) -> None:
        del process_groups
        super().__init__(
            num_features, eps, momentum, affine, gamma_init, beta_init, moving_mean_init, moving_var_init,
            use_batch_statistics, "NCHW", dtype,
        )  # fmt: skip


class BatchNorm3d(Cell):
    """Batch normalisation of (N, C, D, H, W), by a BatchNorm2d that sees the depth and the height as one axis."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        moving_mean_init: Any = "zeros",
        moving_var_init: Any = "ones",
        use_batch_statistics: bool | None = None,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.bn2d = BatchNorm2d(
            num_features, eps, momentum, affine, gamma_init, beta_init, moving_mean_init, moving_var_init,
            use_batch_statistics, "NCHW", dtype,
        )  # fmt: skip

    def construct(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise ValueError(f"BatchNorm3d: the input has to have 5 axes, but its shape is {x.shape}")
        flat = x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3], x.shape[4])
        return self.bn2d(flat).reshape(x.shape)  # type: ignore[no-any-return]


class LayerNorm(Cell):
    """Normalises over the axes from `begin_norm_axis` on, times gamma plus beta.

    Args:
        normalized_shape: a tuple or list (TypeError otherwise), the shape of gamma and beta.
        begin_norm_axis, begin_params_axis: where the axes begin; -1 is the last one.
        epsilon: added to the variance; 1e-7.

    ValueError at the call when the input does not end in `normalized_shape` from `begin_params_axis` on.
    """

    def __init__(
        self,
        normalized_shape: Sequence[int],
        begin_norm_axis: int = -1,
        begin_params_axis: int = -1,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        epsilon: float = 1e-7,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        if not isinstance(normalized_shape, tuple | list):
            raise TypeError(
                f"LayerNorm: 'normalized_shape' has to be a tuple or list, not {type(normalized_shape).__name__}"
            )
        self.normalized_shape = normalized_shape
        self.begin_norm_axis, self.begin_params_axis, self.epsilon = begin_norm_axis, begin_params_axis, epsilon
        self.gamma = initialised(gamma_init, normalized_shape, dtype, name="gamma")
        self.beta = initialised(beta_init, normalized_shape, dtype, name="beta")

    def construct(self, input_x: Tensor) -> Tensor:
        x = unwrap(input_x)
        axes, start = (x.ndim - axis % x.ndim for axis in (self.begin_norm_axis, self.begin_params_axis))
        if x.shape[x.ndim - start :] != tuple(self.normalized_shape):
            raise ValueError(
                f"LayerNorm: an input of {x.shape} does not have the shape {tuple(self.normalized_shape)} "
                f"from the axis {self.begin_params_axis} on"
            )
        return wrap(kernel.layer_norm(x, unwrap(self.gamma), unwrap(self.beta), axes, self.epsilon)[0])

    def extend_repr(self) -> str:
        # The missing '=' is MindSpore's.
        return (
            f"normalized_shape={self.normalized_shape}, begin_norm_axis={self.begin_norm_axis}, "
            f"begin_params_axis={self.begin_params_axis}, gamma{self.gamma}, beta={self.beta}"
        )


class RMSNorm(Cell):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axes. MindSpore 2.10 has no such layer."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        epsilon: float = 1e-6,
        weight_init: Any = "ones",
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.epsilon = epsilon
        self.weight = initialised(weight_init, self.normalized_shape, dtype, name="weight")

    def construct(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.epsilon)[0]

    def extend_repr(self) -> str:
        return f"normalized_shape={self.normalized_shape}, epsilon={self.epsilon}"


class GroupNorm(Cell):
    """Normalises each of `num_groups` groups of channels (axis 1), times gamma plus beta of each channel.

    ValueError when the groups do not divide the channels, or at the call for another number of channels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.num_groups = positive(num_groups, "num_groups", "GroupNorm")
        self.num_channels = positive(num_channels, "num_channels", "GroupNorm")
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_groups} groups do not divide {num_channels} channels")
        self.eps, self.affine = eps, affine
        self.gamma = _per_channel(gamma_init, num_channels, dtype, "gamma", affine)
        self.beta = _per_channel(beta_init, num_channels, dtype, "beta", affine)

    def construct(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: axis 1 of {x.shape} does not have {self.num_channels} channels")
        return ops.group_norm(x, self.num_groups, self.gamma, self.beta, self.eps)

    def extend_repr(self) -> str:
        return f"num_groups={self.num_groups}, num_channels={self.num_channels}"


class _InstanceNorm(_Statistics):
    """Normalises every channel of every sample by itself in training, else by the kept statistics."""

    rank: ClassVar[int]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        dtype: Type = float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, gamma_init, beta_init, "zeros", "ones", dtype)

    def construct(self, x: Tensor) -> Tensor:
        if x.ndim != self.rank or x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: the input has to have {self.rank} axes and {self.num_features} channels, "
                f"but its shape is {x.shape}"
            )
        return wrap(kernel.instance_norm(unwrap(x), unwrap(self.gamma), unwrap(self.beta), self.eps))


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L)."""

    rank = 3


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W)."""

    rank = 4


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W)."""

    rank = 5


class LRN(Cell):
    """x / (bias + alpha * sum of squares over neighbouring channels) ** beta."""

    def __init__(
        self,
        depth_radius: int = 5,
        bias: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.5,
        norm_region: str = "ACROSS_CHANNELS",
    ) -> None:
        super().__init__()
        self._arguments = (depth_radius, bias, alpha, beta, norm_region)

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.lrn(input_x, *self._arguments)
