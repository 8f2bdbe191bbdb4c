"""Layers without Parameters that drop, reshape, resize and select.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ops
from ..common.dtype import Type, float32
from ..common.tensor import Tensor
from .cell import Cell
from .checks import number, positive


class Dropout(Cell):
    """In training zeroes each element with probability `p` (1 - keep_prob) and scales the others up; else passes on.

    Args:
        keep_prob: the older way to say it, a float in (0, 1].
        p: a number in [0, 1); wins over `keep_prob`.

    TypeError and ValueError for anything else.
    """

    def __init__(self, keep_prob: float = 0.5, p: float | None = None, dtype: Type = float32) -> None:
        super().__init__()
        del dtype
        self.keep_prob, self.p = keep_prob, p
        if p is None:
            if not isinstance(keep_prob, float):
                raise TypeError(f"Dropout: 'keep_prob' has to be a float, not {type(keep_prob).__name__}")
            if not 0 < keep_prob <= 1:
                raise ValueError(f"Dropout: 'keep_prob' has to be within (0, 1], but it is {keep_prob}")
        elif number(p, "p", "Dropout", 0, 1) == 1:
            raise ValueError("Dropout: 'p' has to be below 1")

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return ops.dropout(x, 1 - self.keep_prob if self.p is None else self.p)

    def extend_repr(self) -> str:
        return f"keep_prob={self.keep_prob}" if self.p is None else f"p={self.p}"


class _ChannelDropout(Cell):
    """In training zeroes whole channels with probability `p` in [0, 1] and scales the others up; else passes on."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.prob = number(p, "p", type(self).__name__, 0, 1)

    def construct(self, x: Tensor) -> Tensor:
        return ops.dropout2d(x, self.prob, self.training)


class Dropout1d(_ChannelDropout):
    """For (N, C, L). See `_ChannelDropout`."""


class Dropout2d(_ChannelDropout):
    """For (N, C, H, W). See `_ChannelDropout`."""

    def extend_repr(self) -> str:
        # MindSpore shows the probability of keeping here.
        return f"p={1 - self.prob}"


class Dropout3d(_ChannelDropout):
    """For (N, C, D, H, W). See `_ChannelDropout`."""

    def extend_repr(self) -> str:
        # As for Dropout2d.
        return f"p={1 - self.prob}"


class Flatten(Cell):
    """The axes from `start_dim` to `end_dim` joined. ValueError at the call when the input does not have them."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        for name, value in (("start_dim", start_dim), ("end_dim", end_dim)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Flatten: {name!r} has to be an int, not {type(value).__name__}")
        self.start_dim, self.end_dim = start_dim, end_dim

    def construct(self, x: Tensor) -> Tensor:
        if not all(-x.ndim <= axis < x.ndim for axis in (self.start_dim, self.end_dim)):
            raise ValueError(f"Flatten: 'start_dim' or 'end_dim' out of range for an input of {x.shape}")
        return ops.flatten(x, start_dim=self.start_dim, end_dim=self.end_dim)


class Unflatten(Cell):
    """The axis `axis` divided into axes of `unflattened_size`, one of which may be -1."""

    def __init__(self, axis: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, tuple | list):
            raise TypeError(
                f"Unflatten: 'unflattened_size' has to be a tuple or list, not {type(unflattened_size).__name__}"
            )
        self.axis, self.unflattened_size = axis, tuple(unflattened_size)

    def construct(self, input_x: Tensor) -> Tensor:
        shape = input_x.shape
        axis = self.axis % len(shape)
        return ops.reshape(input_x, (*shape[:axis], *self.unflattened_size, *shape[axis + 1 :]))


class Identity(Cell):
    """Passes its input on, whatever it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        super().__init__()

    def construct(self, input: Any) -> Any:
        return input


class Upsample(Cell):
    """(N, C, *spatial) resized to `size` or by `scale_factor`; arguments and errors as in `ops.interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self._arguments = (size, scale_factor, mode, align_corners, recompute_scale_factor)

    def construct(self, x: Tensor) -> Tensor:
        return ops.interpolate(x, *self._arguments)


class PixelShuffle(Cell):
    """(..., C r^2, H, W) -> (..., C, H r, W r). ValueError when the channels cannot be divided."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = positive(upscale_factor, "upscale_factor", "PixelShuffle")

    def construct(self, input: Tensor) -> Tensor:
        return ops.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(Cell):
    """(..., C, H r, W r) -> (..., C r^2, H, W). ValueError when height and width cannot be divided."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = positive(downscale_factor, "downscale_factor", "PixelUnshuffle")

    def construct(self, input: Tensor) -> Tensor:
        return ops.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(Cell):
    """The channels (axis 1) of `groups` groups interleaved. ValueError when they do not divide the channels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = positive(groups, "groups", "ChannelShuffle")

    def construct(self, x: Tensor) -> Tensor:
        return ops.channel_shuffle(x, self.groups)


class OneHot(Cell):
    """`on_value` at each index along a new `axis` of `depth` elements, `off_value` elsewhere."""

    def __init__(
        self, axis: int = -1, depth: int = 1, on_value: float = 1.0, off_value: float = 0.0, dtype: Type = float32
    ) -> None:
        super().__init__()
        self.axis, self.depth, self.dtype = axis, depth, dtype
        self.on_value, self.off_value = Tensor(on_value, dtype), Tensor(off_value, dtype)

    def construct(self, indices: Tensor) -> Tensor:
        return ops.one_hot(indices, self.depth, self.on_value, self.off_value, self.axis)


class Tril(Cell):
    """The lower triangle of the last two axes."""

    def construct(self, x: Tensor, k: int = 0) -> Tensor:
        return ops.tril(x, k)


class Triu(Cell):
    """The upper triangle of the last two axes."""

    def construct(self, x: Tensor, k: int = 0) -> Tensor:
        return ops.triu(x, k)


class Roll(Cell):
    """The elements moved on by `shift` along `axis`."""

    def __init__(self, shift: Any, axis: Any) -> None:
        super().__init__()
        self.shift, self.axis = shift, axis

    def construct(self, input_x: Tensor) -> Tensor:
        return ops.roll(input_x, self.shift, self.axis)


class Range(Cell):
    """start, start + delta, ... below `limit` (from 0 with one bound): Int32 of ints, else Float32."""

    def __init__(self, start: float, limit: float | None = None, delta: float = 1) -> None:
        super().__init__()
        values = ops.arange(start, limit, delta)
        self.result_tensor = values if values.is_floating_point() else values.int()

    def construct(self) -> Tensor:
        return self.result_tensor


class Norm(Cell):
    """The 2-norm over `axis`, () for all axes."""

    def __init__(self, axis: Any = (), keep_dims: bool = False) -> None:
        super().__init__()
        self.axis, self.keep_dims = axis, keep_dims

    def construct(self, x: Tensor) -> Tensor:
        return ops.sqrt(ops.sum(ops.square(x), self.axis, self.keep_dims))

    def extend_repr(self) -> str:
        return f"axis={self.axis}, keep_dims={self.keep_dims}"


class ReduceLogSumExp(Cell):
    """log(sum(exp(x))) over `axis`."""

    def __init__(self, axis: Any, keep_dims: bool = False) -> None:
        super().__init__()
        self.axis, self.keep_dims = axis, keep_dims

    def construct(self, x: Tensor) -> Tensor:
        return ops.logsumexp(x, self.axis, self.keep_dims)


class Moments(Cell):
    """The mean and the biased variance over `axis`, None for all axes."""

    def __init__(self, axis: Any = None, keep_dims: bool | None = None) -> None:
        super().__init__()
        self.axis, self.keep_dims = axis, bool(keep_dims)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return ops.mean(x, self.axis, self.keep_dims), ops.var(x, self.axis, 0, self.keep_dims)


class ClipByNorm(Cell):
    """x scaled down where its 2-norm over `axis` (None: all axes) is larger than `clip_norm`."""

    def __init__(self, axis: Any = None) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, x: Tensor, clip_norm: Tensor) -> Tensor:
        size = ops.sqrt(ops.sum(ops.square(x), self.axis, True))
        return x * clip_norm / ops.maximum(size, clip_norm)


class L1Regularizer(Cell):
    """`scale` times the sum of the absolute values. ValueError unless scale > 0."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"L1Regularizer: 'scale' has to be positive, but it is {scale}")
        self.scale = scale

    def construct(self, weights: Tensor) -> Tensor:
        return ops.sum(ops.abs(weights)) * self.scale
