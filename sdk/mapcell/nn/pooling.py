"""Pooling over the spatial axes of (N, C, *spatial) or (C, *spatial).

`pad_mode`, in any case: "same" gives ceil(n / stride) windows, "valid" pads nothing, "pad" adds `padding` on both
sides. Padding never wins a maximum; a mean counts it as zeros with "pad" (unless told not to), never with "same"
(but over three axes, there as MindSpore does).

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from .. import ops
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import arguments
from ..kernels import pool as kernel
from ..kernels.promotion import Array
from .cell import Cell
from .checks import boolean

Pads = Sequence[tuple[int, int]]


def _window(value: Any, n: int, name: str, who: str) -> tuple[int, ...]:
    if isinstance(value, bool) or not isinstance(value, int | tuple):
        raise TypeError(f"{who}: {name!r} has to be an int or a tuple, not {type(value).__name__}")
    return arguments.sizes(value, n, name)


class _Pool(Cell):
    """What all pools with windows share: arguments, padding, repr.

    Raises:
        TypeError: a kernel or stride that is no int and no tuple.
        ValueError: sizes below 1, an unknown `pad_mode`, padding larger than half the kernel or with another mode than
            "pad", another data format; at the call an input of another rank or smaller than the kernel.
    """

    rank: ClassVar[int]

    def __init__(self, kernel_size: Any, stride: Any, pad_mode: str, padding: Any, data_format: str = "NCHW") -> None:
        super().__init__()
        who = type(self).__name__
        if data_format != "NCHW":
            raise ValueError(f"{who}: the data format {data_format!r} is not supported on a CPU")
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self._kernel = _window(kernel_size, self.rank, "kernel_size", who)
        self._stride = _window(stride, self.rank, "stride", who)
        self.pad_mode = arguments.pad_mode(pad_mode).upper()
        self._pads = arguments.symmetric(padding, self.rank)
        if any(p > k // 2 for (p, _), k in zip(self._pads, self._kernel, strict=True)):
            raise ValueError(f"{who}: 'padding' {padding} has to be at most half of the kernel {kernel_size}")

    def _input(self, x: Tensor) -> Array:
        who = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: the input has to be a Tensor, not {type(x).__name__}")
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"{who}: the input has to have {self.rank + 1} or {self.rank + 2} axes, but its shape is {x.shape}"
            )
        return unwrap(x)

    def _padding_of(self, shape: Sequence[int], dilation: Sequence[int], ceil_mode: bool) -> Pads:
        spatial = shape[-self.rank :]
        pads = arguments.pads_of(self.pad_mode.lower(), self._pads, spatial, self._kernel, self._stride, dilation)
        if not ceil_mode or self.pad_mode == "SAME":
            return pads
        return kernel.ceil_padding(spatial, self._kernel, self._stride, pads, dilation)

    def _shown(self) -> tuple[Any, Any]:
        return self.kernel_size, self.stride

    def extend_repr(self) -> str:
        kernel_size, stride = self._shown()
        return f"kernel_size={kernel_size}, stride={stride}, pad_mode={self.pad_mode}"


class _MaxPool(_Pool):
    """The largest element of each window, on demand with its flat position in its plane (Int64). Errors: `_Pool`."""

    def __init__(
        self,
        kernel_size: Any = 1,
        stride: Any = 1,
        pad_mode: str = "valid",
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__(kernel_size, stride, pad_mode, padding, data_format)
        who = type(self).__name__
        self.dilation = dilation
        self._dilation = arguments.sizes(dilation, self.rank, "dilation")
        self.return_indices = boolean(return_indices, "return_indices", who)
        self.ceil_mode = boolean(ceil_mode, "ceil_mode", who)
        special = any(d != 1 for d in self._dilation) or any(p for p, _ in self._pads) or return_indices or ceil_mode
        if special and self.pad_mode != "PAD":
            raise ValueError(
                f"{who}: 'padding', 'dilation', 'return_indices' and 'ceil_mode' go with the pad_mode 'pad' only"
            )

    def construct(self, x: Tensor) -> Any:
        array = self._input(x)
        pads = self._padding_of(array.shape, self._dilation, self.ceil_mode)
        arguments_ = (array, self._kernel, self._stride, pads, self._dilation)
        if not self.return_indices:
            return wrap(kernel.max_pool(*arguments_))
        values, where = kernel.max_pool_with_indices(*arguments_)
        return wrap(values), wrap(where)


class MaxPool1d(_MaxPool):
    """Over the last axis of (N, C, L) or (C, L). See `_MaxPool`."""

    rank = 1

    def _shown(self) -> tuple[Any, Any]:
        ones = (1, 1) if self.pad_mode == "PAD" else (1,)
        return (*ones, *self._kernel), (*ones, *self._stride)


class MaxPool2d(_MaxPool):
    """Over the last two axes of (N, C, H, W) or (C, H, W). See `_MaxPool`."""

    rank = 2


class MaxPool3d(_MaxPool):
    """Over the last three axes of (N, C, D, H, W) or (C, D, H, W). See `_MaxPool`."""

    rank = 3


class _AvgPool(_Pool):
    """The mean of each window. `divisor_override` replaces the number of elements. Errors: `_Pool`."""

    def __init__(
        self,
        kernel_size: Any = 1,
        stride: Any = 1,
        pad_mode: str = "valid",
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__(kernel_size, stride, pad_mode, padding, data_format)
        arguments.no_padding_unless_pad(self.pad_mode.lower(), self._pads)
        self.ceil_mode = boolean(ceil_mode, "ceil_mode", type(self).__name__)
        self.count_include_pad = boolean(count_include_pad, "count_include_pad", type(self).__name__)
        if divisor_override is not None and divisor_override <= 0:
            raise ValueError(f"{type(self).__name__}: 'divisor_override' has to be positive, not {divisor_override}")
        self.divisor_override = divisor_override

    def construct(self, x: Tensor) -> Tensor:
        array = self._input(x)
        pads = self._padding_of(array.shape, (1,) * self.rank, self.ceil_mode)
        counted = self._counted(pads)
        return wrap(kernel.avg_pool(array, self._kernel, self._stride, pads, counted, self.divisor_override))

    def _counted(self, pads: Pads) -> Pads:
        if self.rank == 3 and self.pad_mode == "SAME" and self.count_include_pad:
            return pads
        return self._pads if self.count_include_pad else ((0, 0),) * self.rank


class AvgPool1d(_AvgPool):
    """Over the last axis of (N, C, L) or (C, L). See `_AvgPool`."""

    rank = 1

    def __init__(
        self,
        kernel_size: Any = 1,
        stride: Any = 1,
        pad_mode: str = "valid",
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, pad_mode, padding, ceil_mode, count_include_pad)

    def _shown(self) -> tuple[Any, Any]:
        if self.pad_mode == "PAD":
            return self.kernel_size, self.stride
        return (1, *self._kernel), (1, *self._stride)


class AvgPool2d(_AvgPool):
    """Over the last two axes of (N, C, H, W) or (C, H, W). See `_AvgPool`."""

    rank = 2


class AvgPool3d(_AvgPool):
    """Over the last three axes of (N, C, D, H, W) or (C, D, H, W). See `_AvgPool`."""

    rank = 3


class _LPPool(Cell):
    """(sum of x ** norm_type over each window) ** (1 / norm_type); windows side by side unless `stride` is given."""

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode


class LPPool1d(_LPPool):
    """Over the last axis. See `_LPPool`."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.lp_pool1d(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """Over the last two axes. See `_LPPool`."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.lp_pool2d(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class _Adaptive(Cell):
    """Bins instead of windows: output element i covers floor(i n / o) to ceil((i + 1) n / o). None keeps an axis.

    ValueError at the call when the rank or `output_size` does not fit, TypeError when that holds no ints.
    """

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size


class AdaptiveAvgPool1d(_Adaptive):
    """The means of bins of the last axis."""

    def construct(self, input: Tensor) -> Tensor:
        return ops.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_Adaptive):
    """The means of bins of the last two axes."""

    def construct(self, input: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_Adaptive):
    """The means of bins of the last three axes."""

    def construct(self, input: Tensor) -> Tensor:
        return ops.adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool1d(_Adaptive):
    """The maxima of bins of the last axis."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.adaptive_max_pool1d(x, self.output_size)


class AdaptiveMaxPool2d(_Adaptive):
    """The maxima of bins of the last two axes, on demand with their flat positions (Int64)."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def construct(self, input: Tensor) -> Any:
        return ops.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_Adaptive):
    """The maxima of bins of the last three axes, on demand with their flat positions (Int64)."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def construct(self, input: Tensor) -> Any:
        return ops.adaptive_max_pool3d(input, self.output_size, self.return_indices)
