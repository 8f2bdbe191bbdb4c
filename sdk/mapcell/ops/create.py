"""New Tensors: constants, ranges, random numbers, and conversions.

Random numbers come from NumPy's global generator, which `set_seed` seeds.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.dtype import Type, check, float32, int64
from ..common.tensor import Tensor, wrap
from ..kernels.promotion import Array, settled
from ..kernels.promotion import cast as cast_array
from ._call import array, operand

Number = bool | int | float
Size = int | Sequence[int] | Tensor


def _shape(size: Size, who: str) -> tuple[int, ...]:
    given: Any = size.tolist() if isinstance(size, Tensor) else size
    shape = tuple(given) if isinstance(given, tuple | list) else (given,)
    if any(isinstance(n, bool) or not isinstance(n, int) for n in shape):
        raise TypeError(f"{who}: a size consists of ints, not {size!r}")
    if any(n < 0 for n in shape):
        raise ValueError(f"{who}: a size cannot be negative, but it is {size!r}")
    return shape


def _numpy(dtype: Type | None, default: np.dtype[Any], who: str) -> np.dtype[Any]:
    return default if dtype is None else check(dtype, who).numpy


def _filled(shape: tuple[int, ...], value: Any, dtype: np.dtype[Any]) -> Tensor:
    return wrap(np.full(shape, cast_array(np.asarray(value), dtype), dtype))


def zeros(size: Size, dtype: Type | None = None) -> Tensor:
    """Zeros of `size`, Float32 unless given."""
    return wrap(np.zeros(_shape(size, "zeros"), _numpy(dtype, float32.numpy, "zeros")))


def ones(shape: Size, dtype: Type | None = None) -> Tensor:
    """Ones of `shape`, Float32 unless given."""
    return _filled(_shape(shape, "ones"), 1, _numpy(dtype, float32.numpy, "ones"))


def full(size: Size, fill_value: Number, *, dtype: Type | None = None) -> Tensor:
    """`fill_value` all over, Int64 unless `dtype` is given, as MindSpore 2.10 makes it of floats too."""
    return _filled(_shape(size, "full"), fill_value, _numpy(dtype, int64.numpy, "full"))


def zeros_like(input: Tensor, *, dtype: Type | None = None) -> Tensor:
    """Zeros in the shape and, unless given, the dtype of `input`."""
    x = array(input, "zeros_like")
    return wrap(np.zeros(x.shape, _numpy(dtype, x.dtype, "zeros_like")))


def ones_like(input: Tensor, *, dtype: Type | None = None) -> Tensor:
    """Ones in the shape and, unless given, the dtype of `input`."""
    return full_like(input, 1, dtype=dtype)


def full_like(input: Tensor, fill_value: Number, *, dtype: Type | None = None) -> Tensor:
    """`fill_value` all over, in the shape and, unless given, the dtype of `input`."""
    x = array(input, "full_like")
    return _filled(x.shape, fill_value, _numpy(dtype, x.dtype, "full_like"))


def fill(type: Type, shape: Size, value: Number) -> Tensor:
    """`value` all over, of dtype `type`."""
    return _filled(_shape(shape, "fill"), value, check(type, "fill").numpy)


def fills(x: Tensor, value: Number | Tensor) -> Tensor:
    """`value` all over, in the shape and dtype of `x`."""
    return full_like(x, value.item() if isinstance(value, Tensor) else value)


def arange(
    start: Number | Tensor = 0,
    end: Number | Tensor | None = None,
    step: Number | Tensor = 1,
    *,
    dtype: Type | None = None,
) -> Tensor:
    """start, start + step, ... below `end` (from 0 if alone): Int64 of ints, else Float32. ValueError for step 0."""
    first, last, by = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if by == 0:
        raise ValueError("arange: 'step' must not be 0")
    bounds = (0, first, by) if last is None else (first, last, by)
    default = float32 if any(isinstance(v, float) for v in bounds) else int64
    return wrap(np.arange(*bounds).astype(_numpy(dtype, default.numpy, "arange")))


def range(start: Number | Tensor, end: Number | Tensor, step: Number | Tensor, maxlen: int = 1_000_000) -> Tensor:
    """As `arange`; `maxlen` is not needed."""
    del maxlen
    return arange(start, end, step)


def linspace(start: Number | Tensor, end: Number | Tensor, steps: int) -> Tensor:
    """`steps` evenly spaced numbers from `start` to `end`, Float32."""
    return wrap(np.linspace(float(start), float(end), int(steps)).astype(np.float32))


def logspace(
    start: Number | Tensor, end: Number | Tensor, steps: int, base: int = 10, *, dtype: Type = float32
) -> Tensor:
    """`base` to the power of evenly spaced numbers from `start` to `end`."""
    return wrap(np.logspace(float(start), float(end), int(steps), base=base).astype(check(dtype, "logspace").numpy))


def eye(n: int, m: int | None = None, dtype: Type | None = None) -> Tensor:
    """`n` x `m` with ones on the diagonal, Float32 unless given."""
    return wrap(np.eye(n, m, dtype=_numpy(dtype, float32.numpy, "eye")))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Type = int64) -> Tensor:
    """The positions of the lower triangle of a `row` x `col` matrix, (2, count)."""
    return wrap(np.stack(np.tril_indices(row, offset, col)).astype(check(dtype, "tril_indices").numpy))


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Type = int64) -> Tensor:
    """The positions of the upper triangle of a `row` x `col` matrix, (2, count)."""
    return wrap(np.stack(np.triu_indices(row, offset, col)).astype(check(dtype, "triu_indices").numpy))


def scalar_to_tensor(input_x: Number, dtype: Type = float32) -> Tensor:
    """A number as a Tensor of shape ()."""
    return _filled((), input_x, check(dtype, "scalar_to_tensor").numpy)


def tuple_to_array(input_x: Sequence[Number]) -> Tensor:
    """A tuple of numbers as a Tensor: Int32 of ints, else Float32."""
    values = np.asarray(input_x)
    return wrap(values.astype(np.int32 if values.dtype.kind in "iu" else np.float32))


def cast(input: Tensor | Number, dtype: Type) -> Tensor:
    """`input` in `dtype`; itself when it already has it. TypeError unless `dtype` is a mapcell dtype."""
    wanted = check(dtype, "cast").numpy
    source = settled(operand(input, "cast"))
    if isinstance(input, Tensor) and source.dtype == wanted:
        return input
    return wrap(cast_array(source, wanted))


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` in the dtype of `other`."""
    return cast(input, other.dtype)


def _random(sample: Array, dtype: Type | None, default: Type, who: str) -> Tensor:
    return wrap(np.asarray(sample).astype(_numpy(dtype, default.numpy, who)))


def rand(*size: int, dtype: Type | None = None, seed: int | None = None) -> Tensor:
    """Uniform numbers in [0, 1), Float32 unless given."""
    del seed
    return _random(np.random.random_sample(_sizes(size)), dtype, float32, "rand")


def randn(*size: int, dtype: Type | None = None, seed: int | None = None) -> Tensor:
    """Standard normal numbers, Float32 unless given."""
    del seed
    return _random(np.random.standard_normal(_sizes(size)), dtype, float32, "randn")


def _sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    return _shape(size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size, "rand")


def rand_like(input: Tensor, seed: int | None = None, *, dtype: Type | None = None) -> Tensor:
    """`rand` in the shape and, unless given, the dtype of `input`."""
    return rand(*input.shape, dtype=dtype or input.dtype, seed=seed)


def randn_like(input: Tensor, seed: int | None = None, *, dtype: Type | None = None) -> Tensor:
    """`randn` in the shape and, unless given, the dtype of `input`."""
    return randn(*input.shape, dtype=dtype or input.dtype, seed=seed)


def randint(low: int, high: int, size: Size, seed: int | None = None, *, dtype: Type | None = None) -> Tensor:
    """Uniform integers in [low, high), Int64 unless given."""
    del seed
    return _random(np.random.randint(low, high, _shape(size, "randint")), dtype, int64, "randint")


def randperm(n: int, seed: int = 0, offset: int = 0, dtype: Type = int64) -> Tensor:
    """The numbers below `n` in random order."""
    del seed, offset
    return _random(np.random.permutation(n), dtype, int64, "randperm")


def standard_normal(shape: Size, seed: int | None = None) -> Tensor:
    """Standard normal numbers, Float32."""
    del seed
    return _random(np.random.standard_normal(_shape(shape, "standard_normal")), None, float32, "standard_normal")


def normal(shape: Size, mean: Number | Tensor, stddev: Number | Tensor, seed: int | None = None) -> Tensor:
    """Normal numbers, Float32; mean and deviation broadcast with `shape`."""
    del seed
    centre, spread = operand(mean, "normal"), operand(stddev, "normal")
    full_shape = np.broadcast_shapes(_shape(shape, "normal"), np.shape(centre), np.shape(spread))
    return _random(np.random.standard_normal(full_shape) * spread + centre, None, float32, "normal")


def uniform(shape: Size, minval: Tensor, maxval: Tensor, seed: int | None = None, dtype: Type = float32) -> Tensor:
    """Uniform numbers from `minval` to below `maxval`; integers if `dtype` is one."""
    del seed
    low, high = operand(minval, "uniform"), operand(maxval, "uniform")
    sample = np.random.random_sample(_shape(shape, "uniform")) * (np.asarray(high) - low) + low
    return _random(sample, dtype, float32, "uniform")


def bernoulli(input: Tensor, p: float | Tensor = 0.5, seed: int | None = None) -> Tensor:
    """1 with probability `p`, else 0, in the shape and dtype of `input`."""
    del seed
    x = array(input, "bernoulli")
    return wrap((np.random.random_sample(x.shape) < operand(p, "bernoulli")).astype(x.dtype))


def multinomial(input: Tensor, num_samples: int, replacement: bool = True, seed: int | None = None) -> Tensor:
    """`num_samples` positions (Int32) drawn from each row of weights. ValueError when there are too few of them."""
    del seed
    weights = array(input, "multinomial").astype(np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if replacement:
        edges = np.cumsum(rows / rows.sum(-1, keepdims=True), axis=-1)
        draws = np.random.random_sample((rows.shape[0], num_samples))
        picked = np.count_nonzero(edges[:, None, :-1] <= draws[..., None], axis=-1)
    else:
        if num_samples > int(np.count_nonzero(rows, axis=-1).min()):
            raise ValueError(f"multinomial: there are fewer than {num_samples} positions with a weight to choose from")
        # The smallest of exponentials with these rates are a draw without replacement.
        with np.errstate(divide="ignore"):
            picked = np.argsort(np.random.standard_exponential(rows.shape) / rows, axis=-1)[:, :num_samples]
    return wrap(picked.reshape(*weights.shape[:-1], num_samples).astype(np.int32))
