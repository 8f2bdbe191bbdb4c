"""Convolutions of (N, C, *spatial).

`pad_mode`: "same" gives ceil(n / stride) elements, "valid" pads nothing, "pad" adds `padding`: an int, or (before,
after) of each axis one after another. A one-dimensional layer keeps its weight with an axis of size 1,
as checkpoints have it.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any, ClassVar

from ..common.dtype import Type, float32
from ..common.initialised import initialised
from ..common.initializer import HeUniform, Uniform
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import arguments
from ..kernels import conv as kernel
from ..kernels.promotion import Array
from ..kernels.windows import padded
from .cell import Cell
from .checks import boolean, option, positive

PAD_MODES = ("valid", "same", "pad")


class _Conv(Cell):
    """What all convolutions share: arguments, Parameters, repr.

    Raises:
        TypeError: arguments that are no ints; at the call an input of another dtype.
        ValueError: sizes out of range, `group` that does not divide both channels, padding without pad_mode "pad",
            another data format; at the call an input of another rank, or smaller than the kernel.
        RuntimeError: at the call an input of another number of channels.
    """

    rank: ClassVar[int]
    transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        pad_mode: str,
        padding: Any,
        dilation: Any,
        group: int,
        has_bias: bool,
        weight_init: Any,
        bias_init: Any,
        data_format: str,
        dtype: Type,
    ) -> None:
        super().__init__()
        who, n = type(self).__name__, self.rank
        self.in_channels = positive(in_channels, "in_channels", who)
        self.out_channels = positive(out_channels, "out_channels", who)
        self.group = positive(group, "group", who)
        if in_channels % group or out_channels % group:
            raise ValueError(f"{who}: 'group' {group} has to divide {in_channels} and {out_channels} channels")
        self.kernel_size = arguments.sizes(kernel_size, n, "kernel_size")
        self.stride = arguments.sizes(stride, n, "stride")
        self.dilation = arguments.sizes(dilation, n, "dilation")
        self.pad_mode = option(pad_mode, "pad_mode", who, PAD_MODES)
        self.padding = padding
        self._pads = arguments.sided(padding, n)
        arguments.no_padding_unless_pad(pad_mode, self._pads)
        self.has_bias = boolean(has_bias, "has_bias", who)
        self.data_format = data_format
        if data_format not in ("NCHW", "NCDHW"):
            raise ValueError(f"{who}: the data format {data_format!r} is not supported on a CPU")
        self._make_parameters(weight_init, bias_init, dtype)

    def _make_parameters(self, weight_init: Any, bias_init: Any, dtype: Type) -> None:
        first, second = self.out_channels, self.in_channels // self.group
        if self.transposed:
            first, second = self.in_channels, self.out_channels // self.group
        shape = [first, second, *((1,) if self.rank == 1 else ()), *self.kernel_size]
        self.weight_init = HeUniform(sqrt(5)) if weight_init is None else weight_init
        self.weight = initialised(self.weight_init, shape, dtype, name="weight")
        self.bias_init, self.bias = bias_init, None
        if self.has_bias:
            bound = 1 / sqrt(prod(shape[1:]))
            self.bias_init = Uniform(bound) if bias_init is None else bias_init
            self.bias = initialised(self.bias_init, [self.out_channels], dtype, name="bias")

    def _arrays(self, x: Tensor) -> tuple[Array, Array, Array | None]:
        who = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: the input has to be a Tensor, not {type(x).__name__}")
        if x.ndim != self.rank + 2:
            raise ValueError(f"{who}: the input has to have {self.rank + 2} axes, but its shape is {x.shape}")
        if x.shape[1] != self.in_channels:
            raise RuntimeError(f"{who}: the input has {x.shape[1]} channels, but the layer takes {self.in_channels}")
        weight, bias = unwrap(self.weight), self.bias
        return unwrap(x), weight[:, :, 0] if self.rank == 1 else weight, None if bias is None else unwrap(bias)

    def construct(self, x: Tensor) -> Tensor:
        array, weight, bias = self._arrays(x)
        pads = arguments.pads_of(
            self.pad_mode, self._pads, array.shape[2:], self.kernel_size, self.stride, self.dilation
        )
        return wrap(kernel.conv(array, weight, bias, self.stride, pads, self.dilation, self.group))

    def _shown(self) -> tuple[Any, Any, Any, Any, str]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.data_format

    def extend_repr(self) -> str:
        kernel_size, stride, padding, dilation, data_format = self._shown()
        return (
            f"input_channels={self.in_channels}, output_channels={self.out_channels}, kernel_size={kernel_size}, "
            f"stride={stride}, pad_mode={self.pad_mode}, padding={padding}, dilation={dilation}, group={self.group}, "
            f"has_bias={self.has_bias}, weight_init={self.weight_init}, bias_init={self.bias_init}, "
            f"format={data_format}"
        )


class _OneDimensional(_Conv):
    """Shows its sizes as MindSpore does, with the axis of size 1 in front."""

    rank = 1

    def _shown(self) -> tuple[Any, Any, Any, Any, str]:
        padding = (0, 0, *self._pads[0])
        return (1, *self.kernel_size), (1, *self.stride), padding, (1, *self.dilation), "NCHW"


class _Transposed(_Conv):
    """Transposed convolutions: the result of each input element is added up, then cut.

    "same" gives n * stride elements: of what there is too much the smaller half goes first, what lacks are zeros at the
    end. "valid" cuts nothing, "pad" cuts `padding`.
    """

    transposed = True

    def construct(self, x: Tensor) -> Tensor:
        return wrap(self._transposed(x, (0,) * self.rank))

    def _transposed(self, x: Tensor, more: tuple[int, ...]) -> Array:
        array, weight, bias = self._arrays(x)
        cut = self._pads if self.pad_mode != "same" else self._excess()
        return kernel.conv_transpose(array, weight, bias, self.stride, cut, self.dilation, self.group, more)

    def _output_padding(self, output_padding: Any) -> tuple[int, ...]:
        more = arguments.sizes(output_padding, self.rank, "output_padding", 0)
        if any(more) and self.pad_mode != "pad":
            who = type(self).__name__
            raise ValueError(f"{who}: 'output_padding' goes with the pad_mode 'pad', not with {self.pad_mode!r}")
        return more

    def _excess(self) -> tuple[tuple[int, int], ...]:
        spans = zip(self.kernel_size, self.dilation, self.stride, strict=True)
        totals = [(k - 1) * d + 1 - s for k, d, s in spans]
        return tuple((max(total, 0) // 2, total - max(total, 0) // 2) for total in totals)


class Conv1d(_OneDimensional):
    """(N, C_in, L) -> (N, C_out, L'). weight (C_out, C_in / group, 1, kernel), bias (C_out,). Errors: see `_Conv`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        dilation: int = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, "NCHW", dtype,
        )  # fmt: skip


class Conv2d(_Conv):
    """(N, C_in, H, W) -> (N, C_out, H', W'). weight (C_out, C_in / group, kh, kw), bias (C_out,). Errors: `_Conv`."""

    rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        dilation: Any = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        data_format: str = "NCHW",
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, data_format, dtype,
        )  # fmt: skip


class Conv3d(_Conv):
    """(N, C_in, D, H, W) -> (N, C_out, D', H', W'). weight (C_out, C_in / group, kd, kh, kw), bias (C_out,)."""

    rank = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        dilation: Any = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        data_format: str = "NCDHW",
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, data_format, dtype,
        )  # fmt: skip


class Conv1dTranspose(_Transposed, _OneDimensional):
    """(N, C_in, L) -> (N, C_out, L'). weight (C_in, C_out / group, 1, kernel), bias (C_out,)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        dilation: int = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, "NCHW", dtype,
        )  # fmt: skip


class Conv2dTranspose(_Transposed):
    """(N, C_in, H, W) -> (N, C_out, H', W'). weight (C_in, C_out / group, kh, kw), bias (C_out,)."""

    rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        group: int = 1,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, "NCHW", dtype,
        )  # fmt: skip
        self.output_padding = output_padding
        self._more = self._output_padding(output_padding)

    def construct(self, x: Tensor) -> Tensor:
        # Unlike the other ranks, MindSpore's layer of two axes adds zeros, behind the bias.
        return wrap(padded(self._transposed(x, (0, 0)), [(0, more) for more in self._more]))


class Conv3dTranspose(_Transposed):
    """(N, C_in, D, H, W) -> (N, C_out, D', H', W'). weight (C_in, C_out / group, kd, kh, kw), bias (C_out,)."""

    rank = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        pad_mode: str = "same",
        padding: Any = 0,
        dilation: Any = 1,
        group: int = 1,
        output_padding: Any = 0,
        has_bias: bool = False,
        weight_init: Any = None,
        bias_init: Any = None,
        data_format: str = "NCDHW",
        dtype: Type = float32,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, pad_mode, padding, dilation, group, has_bias, weight_init,
            bias_init, data_format, dtype,
        )  # fmt: skip
        self.output_padding = output_padding
        self._more = self._output_padding(output_padding)

    def construct(self, x: Tensor) -> Tensor:
        return wrap(self._transposed(x, self._more))
