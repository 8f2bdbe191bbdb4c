"""Convolution of (N, C, *spatial) with weights (out, C / groups, *kernel).

`pad_mode`: "same" gives ceil(n / stride) elements, "valid" pads nothing, "pad" adds `padding` on both sides.
ValueError for other modes, for padding in another mode, and for shapes that do not fit; TypeError for differing dtypes.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from typing import Any

from ..common.tensor import Tensor, wrap
from ..kernels import arguments
from ..kernels import conv as kernel
from ._call import array, call, maybe


def _conv(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    mode: str,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    who = f"conv{n}d"
    x, w, b = array(input, who), array(weight, who), maybe(bias, who)
    if x.ndim != n + 2:
        raise ValueError(f"{who}: the input has to have {n + 2} axes, but its shape is {x.shape}")
    if mode not in arguments.PAD_MODES:
        raise ValueError(f"{who}: 'pad_mode' has to be one of {', '.join(arguments.PAD_MODES)}, not {mode!r}")
    pads = arguments.symmetric(padding, n)
    arguments.no_padding_unless_pad(mode, pads)
    steps, spread = arguments.sizes(stride, n, "stride"), arguments.sizes(dilation, n, "dilation")
    around = arguments.pads_of(mode, pads, x.shape[2:], w.shape[2:], steps, spread)
    return wrap(kernel.conv(x, w, b, steps, around, spread, groups))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    pad_mode: str = "valid",
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation over one axis."""
    return _conv(1, input, weight, bias, stride, pad_mode, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    pad_mode: str = "valid",
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation over two axes."""
    return _conv(2, input, weight, bias, stride, pad_mode, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    pad_mode: str = "valid",
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation over three axes."""
    return _conv(3, input, weight, bias, stride, pad_mode, padding, dilation, groups)


def _conv_transpose(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    more: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    who = f"conv_transpose{n}d"
    steps, spread = arguments.sizes(stride, n, "stride"), arguments.sizes(dilation, n, "dilation")
    extra = arguments.sizes(more, n, "output_padding", 0)
    pads = arguments.symmetric(padding, n)
    x, w = array(input, who), array(weight, who)
    return wrap(kernel.conv_transpose(x, w, maybe(bias, who), steps, pads, spread, groups, extra))


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of `conv2d`, with weights (C, out / groups, *kernel)."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, dilation, groups)


def conv3d_transpose(
    inputs: Tensor,
    weight: Tensor,
    pad_mode: str = "valid",
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    group: int = 1,
    output_padding: Any = 0,
) -> Tensor:
    """The transpose of `conv3d`, with weights (C, out / groups, *kernel). ValueError for the mode "same"."""
    mode = arguments.pad_mode(pad_mode, ("valid", "pad"))
    arguments.no_padding_unless_pad(mode, arguments.symmetric(padding, 3))
    return _conv_transpose(3, inputs, weight, None, stride, padding, output_padding, dilation, group)


def bias_add(input_x: Tensor, bias: Tensor) -> Tensor:
    """input_x + bias, the bias along axis 1. ValueError when they do not fit."""
    x, b = array(input_x, "bias_add"), array(bias, "bias_add")
    if x.ndim < 2 or b.shape != (x.shape[1],):
        raise ValueError(f"bias_add: a bias of {b.shape} does not fit axis 1 of {x.shape}")
    return wrap(x + b.reshape(-1, *(1,) * (x.ndim - 2)))


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """(N, C, H, W) -> (N, C * kernel, positions): the windows as columns."""
    return call(
        kernel.unfold,
        input,
        arguments.sizes(kernel_size, 2, "kernel_size"),
        arguments.sizes(stride, 2, "stride"),
        arguments.symmetric(padding, 2),
        arguments.sizes(dilation, 2, "dilation"),
    )


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The reverse of `unfold`: (N, C * kernel, positions) -> (N, C, *output_size), overlapping columns added up."""
    wanted = tuple(output_size.tolist()) if isinstance(output_size, Tensor) else output_size
    return call(
        kernel.fold,
        input,
        arguments.sizes(wanted, 2, "output_size"),
        arguments.sizes(kernel_size, 2, "kernel_size"),
        arguments.sizes(stride, 2, "stride"),
        arguments.symmetric(padding, 2),
        arguments.sizes(dilation, 2, "dilation"),
    )
