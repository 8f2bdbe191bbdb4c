"""What primitives compute where their arguments or results differ from those of the function of the same purpose."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.dtype import Type, int32
from ..common.tensor import Tensor, wrap
from ..kernels import arguments
from ..kernels import conv as conv_kernel
from ..kernels import linear as linear_kernel
from ..kernels import norm as norm_kernel
from ..kernels import pool as pool_kernel
from ..kernels import resize as resize_kernel
from ..kernels.padding import pad as pad_kernel
from . import conv, create, linear, loss, normalization, reduce, resize, selection, shapes
from ._call import array, arrays, call_all
from .math import exp


def matmul(x: Tensor, y: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The product of two matrices, either read transposed. ValueError unless both have 2 axes."""
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"MatMul: both inputs need 2 axes, but they are {x.shape} and {y.shape}")
    return batch_matmul(x, y, transpose_a, transpose_b)


def batch_matmul(x: Tensor, y: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The products over the last two axes, either input read transposed; the others broadcast."""
    return call_all(linear_kernel.batch_matmul, (x, y), transpose_a, transpose_b)


def layer_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    begin_norm_axis: int = 1,
    begin_params_axis: int = 1,
    epsilon: float = 1e-7,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises over the axes from `begin_norm_axis` on. Returns the result, the mean and the variance."""
    source, scale, shift = arrays((x, gamma, beta), "LayerNorm")
    first = norm_axis(source.ndim, begin_norm_axis)
    if scale.shape != source.shape[norm_axis(source.ndim, begin_params_axis) :] or scale.shape != shift.shape:
        raise ValueError(f"LayerNorm: gamma {scale.shape} and beta {shift.shape} do not fit {source.shape}")
    out, mean, var = norm_kernel.layer_norm(source, scale, shift, source.ndim - first, epsilon)
    return wrap(out), wrap(mean), wrap(var)


def norm_axis(ndim: int, axis: int) -> int:
    """`axis` counted from the front. ValueError out of range."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"LayerNorm: the axis {axis} is outside [{-ndim}, {ndim})")
    return axis % ndim


def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    is_training: bool = False,
    epsilon: float = 1e-5,
    momentum: float = 0.1,
    data_format: str = "NCHW",
) -> tuple[Tensor, ...]:
    """Normalises every channel. Returns the result, and the mean and variance used, twice as MindSpore does."""
    nchw(data_format, "BatchNorm")
    if is_training:
        source = array(x, "BatchNorm")
        mean, variance = (wrap(part) for part in norm_kernel.channel_statistics(source))
    out = normalization.batch_norm(x, mean, variance, scale, bias, False, momentum, epsilon)
    return out, mean, variance, mean, variance


def nchw(data_format: str, who: str, expected: str = "NCHW") -> None:
    """ValueError unless the channels come second."""
    if data_format != expected:
        raise ValueError(f"{who}: the data format {data_format!r} is not supported on a CPU, only {expected!r}")


def split(x: Tensor, axis: int = 0, output_num: int = 1) -> tuple[Tensor, ...]:
    """`output_num` equal pieces along `axis`. ValueError when they would not be equal."""
    if output_num < 1 or x.shape[axis] % output_num:
        raise ValueError(f"Split: {x.shape[axis]} elements cannot be divided into {output_num} equal pieces")
    return shapes.split(x, x.shape[axis] // output_num, axis)


def unstack(x: Tensor, axis: int = 0, num: int | None = None) -> tuple[Tensor, ...]:
    """The slices along `axis`; `num` is not needed."""
    del num
    return shapes.unbind(x, axis)


def squeeze(x: Tensor, axis: Any = ()) -> Tensor:
    """Without the axes of size 1, or without those of `axis`."""
    return shapes.squeeze(x, None if axis == () else axis)


def reduce_sum(x: Tensor, axis: Any = (), keep_dims: bool = False, skip_mode: bool = False) -> Tensor:
    """The sum in the dtype of `x`; an empty `axis` means all axes, or (skip_mode) none."""
    if skip_mode and not isinstance(axis, int) and len(axis) == 0:
        return x
    return reduce.sum(x, axis, keep_dims, dtype=x.dtype)


def reduce_mean(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """The mean."""
    return reduce.mean(x, axis, keep_dims)


def reduce_max(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """The largest elements."""
    return reduce.amax(x, axis, keep_dims)


def reduce_min(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """The smallest elements."""
    return reduce.amin(x, axis, keep_dims)


def reduce_prod(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """The product in the dtype of `x`."""
    return reduce.prod(x, axis, keep_dims, x.dtype)


def reduce_all(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """Whether all elements are true."""
    return reduce.all(x, axis, keep_dims)


def reduce_any(x: Tensor, axis: Any = (), keep_dims: bool = False) -> Tensor:
    """Whether some element is true."""
    return reduce.any(x, axis, keep_dims)


def argmax(x: Tensor, axis: int = -1, output_type: Type = int32) -> Tensor:
    """The positions of the largest elements."""
    return create.cast(reduce.argmax(x, axis), output_type)


def argmin(x: Tensor, axis: int = -1, output_type: Type = int32) -> Tensor:
    """The positions of the smallest elements."""
    return create.cast(reduce.argmin(x, axis), output_type)


def arg_max_with_value(x: Tensor, axis: int = 0, keep_dims: bool = False) -> tuple[Tensor, Tensor]:
    """The positions (Int64) of the largest elements, and these."""
    values, where = reduce.max(x, axis, keep_dims)
    return where, values


def arg_min_with_value(x: Tensor, axis: int = 0, keep_dims: bool = False) -> tuple[Tensor, Tensor]:
    """The positions (Int64) of the smallest elements, and these."""
    values, where = reduce.min(x, axis, keep_dims)
    return where, values


def _scanned(x: Tensor, axis: int, exclusive: bool, reverse: bool, product: bool) -> Tensor:
    source = array(x, "CumProd" if product else "CumSum")
    ordered = np.moveaxis(np.flip(source, axis) if reverse else source, axis, -1)
    if exclusive:
        first = np.full((*ordered.shape[:-1], 1), 1 if product else 0, source.dtype)
        ordered = np.concatenate([first, ordered[..., :-1]], axis=-1)
    scan = reduce.cumprod if product else reduce.cumsum
    out = np.moveaxis(array(scan(wrap(ordered), -1, x.dtype), "scan"), -1, axis)
    return wrap(np.flip(out, axis) if reverse else out)


def cum_sum(x: Tensor, axis: int, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """The sums up to each element, without it (exclusive) or from the end (reverse)."""
    return _scanned(x, axis, exclusive, reverse, False)


def cum_prod(x: Tensor, axis: int, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """The products up to each element, without it (exclusive) or from the end (reverse)."""
    return _scanned(x, axis, exclusive, reverse, True)


def topk(x: Tensor, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The `k` largest elements along the last axis, and their positions (Int32)."""
    return selection.topk(x, k, sorted=sorted)


def conv2d(
    x: Tensor,
    weight: Tensor,
    out_channel: int,
    kernel_size: Any,
    mode: int = 1,
    pad_mode: str = "valid",
    pad: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    group: int = 1,
    data_format: str = "NCHW",
) -> Tensor:
    """The cross-correlation with `weight` (out_channel, C / group, *kernel_size). ValueError for another one."""
    del mode
    nchw(data_format, "Conv2D")
    return _conv(2, x, weight, (out_channel, kernel_size), pad_mode, pad, stride, dilation, group)


def conv3d(
    x: Tensor,
    weight: Tensor,
    out_channel: int,
    kernel_size: Any,
    mode: int = 1,
    pad_mode: str = "valid",
    pad: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    group: int = 1,
    data_format: str = "NCDHW",
) -> Tensor:
    """As `conv2d`, over three axes."""
    del mode
    nchw(data_format, "Conv3D", "NCDHW")
    return _conv(3, x, weight, (out_channel, kernel_size), pad_mode, pad, stride, dilation, group)


def _conv(
    n: int,
    x: Tensor,
    weight: Tensor,
    expected: tuple[int, Any],
    mode: str,
    pad: Any,
    stride: Any,
    spread: Any,
    group: int,
) -> Tensor:
    source, w = arrays((x, weight), f"Conv{n}D")
    kernel = arguments.sizes(expected[1], n, "kernel_size")
    if w.shape[0] != expected[0] or w.shape[2:] != kernel:
        raise ValueError(f"Conv{n}D: expected a weight ({expected[0]}, ..., {kernel}), not one of {w.shape}")
    mode, pads = arguments.pad_mode(mode), arguments.sided(pad, n, "pad")
    arguments.no_padding_unless_pad(mode, pads)
    steps, dilation = arguments.sizes(stride, n, "stride"), arguments.sizes(spread, n, "dilation")
    around = arguments.pads_of(mode, pads, source.shape[2:], kernel, steps, dilation)
    return wrap(conv_kernel.conv(source, w, None, steps, around, dilation, group))


def max_pool(
    x: Tensor, kernel_size: Any = 1, strides: Any = 1, pad_mode: str = "valid", data_format: str = "NCHW"
) -> Tensor:
    """The largest element of each window."""
    nchw(data_format, "MaxPool")
    source, kernel, steps, pads = _pooled(2, x, kernel_size, strides, pad_mode)
    return wrap(pool_kernel.max_pool(source, kernel, steps, pads, (1, 1)))


def avg_pool(
    x: Tensor, kernel_size: Any = 1, strides: Any = 1, pad_mode: str = "valid", data_format: str = "NCHW"
) -> Tensor:
    """The mean of the real elements of each window."""
    nchw(data_format, "AvgPool")
    source, kernel, steps, pads = _pooled(2, x, kernel_size, strides, pad_mode)
    return wrap(pool_kernel.avg_pool(source, kernel, steps, pads, ((0, 0), (0, 0))))


def _pooled(n: int, x: Tensor, kernel_size: Any, strides: Any, pad_mode: str) -> tuple[Any, Any, Any, Any]:
    source = array(x, "pool")
    if source.ndim != n + 2:
        raise ValueError(f"pool: the input has to have {n + 2} axes, but its shape is {source.shape}")
    kernel, steps = arguments.sizes(kernel_size, n, "kernel_size"), arguments.sizes(strides, n, "strides")
    mode = arguments.pad_mode(pad_mode, ("same", "valid"))
    return source, kernel, steps, arguments.pads_of(mode, (), source.shape[2:], kernel, steps, (1,) * n)


def dropout(x: Tensor, keep_prob: float = 0.5, Seed0: int = 0, Seed1: int = 0) -> tuple[Tensor, Tensor]:
    """Keeps each element with probability `keep_prob`, scaled up. Returns the result and what was kept (1 or 0)."""
    del Seed0, Seed1
    mask = create.rand(*x.shape) < keep_prob
    return x * mask.astype(x.dtype) / keep_prob, mask.astype(x.dtype)


def pad(x: Tensor, paddings: Any) -> Tensor:
    """Zeros around each axis: one (before, after) pair for each."""
    return wrap(pad_kernel(array(x, "Pad"), [(int(a), int(b)) for a, b in paddings]))


def pad_v3(
    x: Tensor, paddings: Any, value: Any = None, mode: str = "constant", paddings_contiguous: bool = True
) -> Tensor:
    """`paddings` (before, after) of the last axis, then of the last but one."""
    flat = shapes.ints(paddings, "PadV3")
    if not paddings_contiguous:
        half = len(flat) // 2
        flat = tuple(flat[i // 2 + (i % 2) * half] for i in range(len(flat)))
    names = {"edge": "replicate"}
    return resize.pad(x, flat, names.get(mode, mode), None if value is None else float(value))


def mirror_pad(x: Tensor, paddings: Any, mode: str = "REFLECT") -> Tensor:
    """The elements mirrored around each axis, the outermost repeated ("SYMMETRIC") or not ("REFLECT")."""
    if mode not in ("REFLECT", "SYMMETRIC"):
        raise ValueError(f"MirrorPad: 'mode' has to be 'REFLECT' or 'SYMMETRIC', not {mode!r}")
    widths = paddings.tolist() if isinstance(paddings, Tensor) else paddings
    return wrap(pad_kernel(array(x, "MirrorPad"), [(int(a), int(b)) for a, b in widths], mode.lower()))


def resize_bilinear(image: Tensor, size: Any, align_corners: bool = False, half_pixel_centers: bool = False) -> Tensor:
    """(N, C, H, W) resized to `size`, each element weighted of the four around its source."""
    source = array(image, "ResizeBilinearV2")
    pairs = zip(source.shape[2:], shapes.ints(size, "ResizeBilinearV2"), strict=True)
    taps = [resize_kernel.linear(n, o, None, align_corners, half_pixel_centers) for n, o in pairs]
    return wrap(resize_kernel.resample(source, taps))


def resize_nearest(x: Tensor, size: Any, align_corners: bool = False, half_pixel_centers: bool = False) -> Tensor:
    """(N, C, H, W) resized to `size`, each element the one at its source."""
    source = array(x, "ResizeNearestNeighbor")
    pairs = zip(source.shape[2:], shapes.ints(size, "ResizeNearestNeighbor"), strict=True)
    if align_corners:
        taps = [resize_kernel.nearest_aligned(n, o) for n, o in pairs]
    else:
        taps = [resize_kernel.nearest(n, o, None, half_pixel_centers) for n, o in pairs]
    return wrap(resize_kernel.resample(source, taps))


def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """(N, C b^2, H, W) -> (N, C, H b, W b), the block's position varying slowest over the channels."""
    n, channels, height, width = x.shape
    parts = x.reshape(n, block_size, block_size, channels // block_size**2, height, width)
    return parts.transpose(0, 3, 4, 1, 5, 2).reshape(n, -1, height * block_size, width * block_size)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The reverse of `depth_to_space`."""
    n, channels, height, width = x.shape
    parts = x.reshape(n, channels, height // block_size, block_size, width // block_size, block_size)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(n, -1, height // block_size, width // block_size)


def squared_difference(x: Tensor, y: Tensor) -> Tensor:
    """(x - y)^2."""
    difference = x - y
    return difference * difference


def l2_loss(x: Tensor) -> Tensor:
    """Half the sum of squares."""
    return (x * x).sum() / 2


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of each row with `labels` as probabilities, and its gradient."""
    losses = loss.cross_entropy(logits, labels, reduction="none")
    return losses, exp(logits - reduce.logsumexp(logits, -1, True)) - labels


def sparse_softmax_cross_entropy(logits: Tensor, labels: Tensor, is_grad: bool = False) -> Tensor:
    """The mean cross entropy of rows with the classes `labels`, or (is_grad) its gradient."""
    if not is_grad:
        return loss.cross_entropy(logits, labels)
    wanted = selection.one_hot(labels, logits.shape[-1], 1.0, 0.0)
    return (exp(logits - reduce.logsumexp(logits, -1, True)) - wanted) / logits.shape[0]


def nll_loss(
    logits: Tensor, labels: Tensor, weight: Tensor, reduction: str = "mean", ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """The likelihood loss, and the total weight of the classes."""
    total = selection.gather(weight, labels, 0).sum()
    return loss.nll_loss(logits, labels, weight, ignore_index, reduction), total


def bias_add(x: Tensor, bias: Tensor, data_format: str = "NCHW") -> Tensor:
    """x + bias, the bias along axis 1."""
    nchw(data_format, "BiasAdd")
    return conv.bias_add(x, bias)


def float_status(*state: Tensor) -> Tensor:
    """Eight zeros: on a CPU no operator sets the overflow status of an accelerator."""
    del state
    return create.zeros((8,))


def meshgrid(inputs: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Each vector repeated along the axes of the others."""
    return shapes.meshgrid(*inputs, indexing=indexing)


def einsum(operands: Any, equation: str) -> Tensor:
    """Einstein's summation."""
    return linear.einsum(equation, *operands)
