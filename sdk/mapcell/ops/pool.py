"""Pooling over the spatial axes of (N, C, *spatial).

`padding` counts on both sides of each axis; `ceil_mode` keeps a last, partial window. ValueError if shapes do not fit.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common.tensor import Tensor, wrap
from ..kernels import arguments
from ..kernels import pool as kernel
from ..kernels.promotion import Array
from ._call import array


def _spatial(input: Tensor, n: int, who: str) -> Array:
    x = array(input, who)
    if x.ndim != n + 2:
        raise ValueError(f"{who}: the input has to have {n + 2} axes, but its shape is {x.shape}")
    return x


def _half_at_most(pads: Sequence[tuple[int, int]], kernel_size: Sequence[int], who: str) -> None:
    if any(p > k // 2 for (p, _), k in zip(pads, kernel_size, strict=True)):
        raise ValueError(f"{who}: 'padding' {list(pads)} has to be at most half of the kernel {tuple(kernel_size)}")


def _max_pool(
    n: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, indices: bool, ceil_mode: bool
) -> Any:
    who = f"max_pool{n}d"
    x = _spatial(input, n, who)
    window = arguments.sizes(kernel_size, n, "kernel_size")
    steps = window if stride is None else arguments.sizes(stride, n, "stride")
    spread = arguments.sizes(dilation, n, "dilation")
    pads: Sequence[tuple[int, int]] = arguments.symmetric(padding, n)
    _half_at_most(pads, window, who)
    if ceil_mode:
        pads = kernel.ceil_padding(x.shape[2:], window, steps, pads, spread)
    if not indices:
        return wrap(kernel.max_pool(x, window, steps, pads, spread))
    values, where = kernel.max_pool_with_indices(x, window, steps, pads, spread)
    return wrap(values), wrap(where)


def max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    return_indices: bool = False,
    ceil_mode: bool = False,
) -> Any:
    """The largest element of each window (stride None: windows side by side), on demand with its position (Int64)."""
    return _max_pool(2, x, kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def max_pool3d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As `max_pool2d`, over three axes."""
    return _max_pool(3, x, kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def _avg_pool(
    n: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count: bool, divisor: int
) -> Tensor:
    who = f"avg_pool{n}d"
    x = _spatial(input, n, who)
    window = arguments.sizes(kernel_size, n, "kernel_size")
    steps = arguments.sizes(stride, n, "stride")
    pads: Sequence[tuple[int, int]] = arguments.either(padding, n)
    counted = pads if count else ((0, 0),) * n
    if ceil_mode:
        pads = kernel.ceil_padding(x.shape[2:], window, steps, pads, (1,) * n)
    return wrap(kernel.avg_pool(x, window, steps, pads, counted, divisor or None))


def avg_pool1d(
    input_x: Tensor,
    kernel_size: Any = 1,
    stride: Any = 1,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window; padding counts as zeros unless `count_include_pad` is False."""
    return _avg_pool(1, input_x, kernel_size, stride, padding, ceil_mode, count_include_pad, 0)


def avg_pool2d(
    input_x: Tensor,
    kernel_size: Any = 1,
    stride: Any = 1,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int = 0,
) -> Tensor:
    """As `avg_pool1d`, over two axes; `divisor_override` replaces the number of elements."""
    return _avg_pool(2, input_x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input_x: Tensor,
    kernel_size: Any = 1,
    stride: Any = 1,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int = 0,
) -> Tensor:
    """As `avg_pool2d`, over three axes."""
    return _avg_pool(3, input_x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _outputs(size: Any, n: int) -> tuple[int | None, ...]:
    given = tuple(size) if isinstance(size, tuple | list) else (size,) * n
    if len(given) != n:
        raise ValueError(f"'output_size' has to be an int or a tuple of {n}, but it is {size!r}")
    if any(isinstance(s, bool) or not isinstance(s, int | None) for s in given):
        raise TypeError(f"'output_size' has to consist of ints or None, not {size!r}")
    if any(s is not None and s < 1 for s in given):
        raise ValueError(f"'output_size' has to be positive, but it is {size!r}")
    return given


def _planes(input: Tensor, n: int, who: str) -> Array:
    x = array(input, who)
    if x.ndim not in (n + 1, n + 2):
        raise ValueError(f"{who}: the input has to have {n + 1} or {n + 2} axes, but its shape is {x.shape}")
    return x


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The mean over floor(i n / o) .. ceil((i + 1) n / o) for each output element i."""
    return wrap(kernel.adaptive_avg_pool(_planes(input, 1, "adaptive_avg_pool1d"), _outputs(output_size, 1)))


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """As `adaptive_avg_pool1d`, over two axes; None keeps an axis."""
    return wrap(kernel.adaptive_avg_pool(_planes(input, 2, "adaptive_avg_pool2d"), _outputs(output_size, 2)))


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """As `adaptive_avg_pool1d`, over three axes; None keeps an axis."""
    return wrap(kernel.adaptive_avg_pool(_planes(input, 3, "adaptive_avg_pool3d"), _outputs(output_size, 3)))


def _adaptive_max(n: int, input: Tensor, output_size: Any, indices: bool) -> Any:
    x = _planes(input, n, f"adaptive_max_pool{n}d")
    values, where = kernel.adaptive_max_pool(x, _outputs(output_size, n))
    return (wrap(values), wrap(where)) if indices else wrap(values)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The maximum over the bins of `adaptive_avg_pool1d`."""
    return _adaptive_max(1, input, output_size, False)  # type: ignore[no-any-return]


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """As `adaptive_max_pool1d`, over two axes, on demand with the positions (Int64)."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """As `adaptive_max_pool2d`, over three axes."""
    return _adaptive_max(3, input, output_size, return_indices)


def _lp_pool(n: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    x = _planes(input, n, f"lp_pool{n}d")
    window = arguments.sizes(kernel_size, n, "kernel_size")
    steps = window if stride is None else arguments.sizes(stride, n, "stride")
    pads: Sequence[tuple[int, int]] = ((0, 0),) * n
    if ceil_mode:
        pads = kernel.ceil_padding(x.shape[-n:], window, steps, pads, (1,) * n)
    return wrap(kernel.lp_pool(x, norm_type, window, steps, pads))


def lp_pool1d(x: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x ** norm_type over each window) ** (1 / norm_type)."""
    return _lp_pool(1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(x: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """As `lp_pool1d`, over two axes."""
    return _lp_pool(2, x, norm_type, kernel_size, stride, ceil_mode)
