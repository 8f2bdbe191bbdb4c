"""What Parameters start with: ``initializer(init, shape, dtype)`` and the classes that `init` may be.

The result of ``initializer`` is a Tensor whose elements are made when they are first needed. For every class fan_in is
shape[1] * prod(shape[2:]) and fan_out is shape[0] * prod(shape[2:]), whatever the layer.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.common.initializer.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from numbers import Number
from typing import Any

import numpy as np

from ..kernels.promotion import Array
from ..storage import LazyInit
from . import seed
from .core import TensorCore
from .dtype import Type, check, float32
from .tensor import Tensor, from_storage


class Initializer:
    """Base of all initializers. A subclass overrides ``_initialize(self, arr)``, which writes into the ndarray."""

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs

    def _initialize(self, arr: Array) -> None:
        raise NotImplementedError(f"{type(self).__name__} has to define _initialize(self, arr)")

    def __call__(self, arr: Array) -> None:
        """Fills `arr` in place."""
        self._initialize(arr)

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The arguments that the initializer was made with."""
        return self._kwargs


def _normal(arr: Array, sigma: float, mean: float = 0.0) -> None:
    values = np.float32(mean) + np.float32(sigma) * seed.standard_normal(arr.size)
    arr[...] = values.reshape(arr.shape)


def _uniform(arr: Array, bound: float) -> None:
    values = seed.generator().random(arr.size, np.float32)
    values *= np.float32(2 * bound)
    values -= np.float32(bound)
    arr[...] = values.reshape(arr.shape)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out). ValueError for fewer than two axes."""
    if len(shape) < 2:
        raise ValueError(f"fan_in and fan_out need a shape of at least 2 axes, but it is {shape}")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


class Zero(Initializer):
    """All zeros."""

    def _initialize(self, arr: Array) -> None:
        arr[...] = 0


class One(Initializer):
    """All ones."""

    def _initialize(self, arr: Array) -> None:
        arr[...] = 1


class Constant(Initializer):
    """All `value`, a number. ValueError for anything else."""

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)
        if np.ndim(value) != 0:
            raise ValueError(f"Constant: 'value' has to be one number, not {value!r}")
        self.value = value

    def _initialize(self, arr: Array) -> None:
        arr[...] = self.value


class Normal(Initializer):
    """N(mean, sigma squared). ValueError when sigma is negative."""

    def __init__(self, sigma: float = 0.01, mean: float = 0.0) -> None:
        super().__init__(sigma=sigma, mean=mean)
        self.sigma, self.mean = _not_negative(sigma), mean

    def _initialize(self, arr: Array) -> None:
        _normal(arr, self.sigma, self.mean)


class Uniform(Initializer):
    """U(-scale, scale)."""

    def __init__(self, scale: float = 0.07) -> None:
        super().__init__(scale=scale)
        self.scale = scale

    def _initialize(self, arr: Array) -> None:
        _uniform(arr, self.scale)


class TruncatedNormal(Initializer):
    """N(mean, sigma squared) cut to [a, b], which are absolute values. ValueError when sigma is negative."""

    def __init__(self, sigma: float = 0.01, mean: float = 0.0, a: float = -2.0, b: float = 2.0) -> None:
        super().__init__(sigma=sigma, mean=mean, a=a, b=b)
        self.sigma, self.mean, self.a, self.b = _not_negative(sigma), mean, a, b

    def _initialize(self, arr: Array) -> None:
        from scipy.special import ndtr, ndtri

        scale = self.sigma or 1.0
        low, high = ndtr((self.a - self.mean) / scale), ndtr((self.b - self.mean) / scale)
        drawn = ndtri(low + (high - low) * seed.generator().random(arr.size))
        arr[...] = np.clip(self.mean + self.sigma * drawn, self.a, self.b).reshape(arr.shape)


class XavierUniform(Initializer):
    """U(-x, x) with x = gain * sqrt(6 / (fan_in + fan_out))."""

    def __init__(self, gain: float = 1) -> None:
        super().__init__(gain=gain)
        self.gain = gain

    def _initialize(self, arr: Array) -> None:
        _uniform(arr, self.gain * math.sqrt(6 / sum(_fans(arr.shape))))


class XavierNormal(Initializer):
    """N(0, s squared) with s = gain * sqrt(2 / (fan_in + fan_out))."""

    def __init__(self, gain: float = 1) -> None:
        super().__init__(gain=gain)
        self.gain = gain

    def _initialize(self, arr: Array) -> None:
        _normal(arr, self.gain * math.sqrt(2 / sum(_fans(arr.shape))))


_GAINS = {"relu": math.sqrt(2), "tanh": 5 / 3}
_UNIT_GAINS = frozenset(
    {"linear", "sigmoid", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
)


def _gain(nonlinearity: str, negative_slope: float) -> float:
    """The gain of a nonlinearity. ValueError for an unknown one."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + negative_slope**2))
    if nonlinearity in _UNIT_GAINS:
        return 1.0
    if nonlinearity not in _GAINS:
        known = ", ".join(sorted({"leaky_relu", *_GAINS, *_UNIT_GAINS}))
        raise ValueError(f"'nonlinearity' has to be one of {known}, not {nonlinearity!r}")
    return _GAINS[nonlinearity]


class _He(Initializer):
    def __init__(self, negative_slope: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> None:
        super().__init__(negative_slope=negative_slope, mode=mode, nonlinearity=nonlinearity)
        self.negative_slope, self.mode, self.nonlinearity = negative_slope, mode, nonlinearity

    def _deviation(self, shape: tuple[int, ...]) -> float:
        if self.mode not in ("fan_in", "fan_out"):
            raise ValueError(f"'mode' has to be 'fan_in' or 'fan_out', not {self.mode!r}")
        fan = _fans(shape)[0 if self.mode == "fan_in" else 1]
        return _gain(self.nonlinearity, self.negative_slope) / math.sqrt(fan)


class HeUniform(_He):
    """U(-x, x) with x = sqrt(3) * gain / sqrt(fan). Mode and nonlinearity are checked when it runs: ValueError."""

    def _initialize(self, arr: Array) -> None:
        _uniform(arr, math.sqrt(3) * self._deviation(arr.shape))


class HeNormal(_He):
    """N(0, s squared) with s = gain / sqrt(fan). Mode and nonlinearity are checked when it runs: ValueError."""

    def _initialize(self, arr: Array) -> None:
        _normal(arr, self._deviation(arr.shape))


class VarianceScaling(Initializer):
    """Variance scale / max(1, fan). MindSpore's 'truncated_normal' draws from the uniform one, and so does this.

    ValueError unless scale > 0, mode is fan_in, fan_out or fan_avg, and distribution is uniform, truncated_normal or
    untruncated_normal.
    """

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal", seed: int | None = None
    ) -> None:
        super().__init__(scale=scale, mode=mode, distribution=distribution, seed=seed)
        if scale <= 0:
            raise ValueError(f"'scale' has to be positive, but it is {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"'mode' has to be 'fan_in', 'fan_out' or 'fan_avg', not {mode!r}")
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(f"'distribution' is not one that is known: {distribution!r}")
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def _initialize(self, arr: Array) -> None:
        fan_in, fan_out = _fans(arr.shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "untruncated_normal":
            _normal(arr, math.sqrt(variance))
        else:
            _uniform(arr, math.sqrt(3 * variance))


class Orthogonal(Initializer):
    """gain times a matrix with orthonormal rows or columns; further axes count as columns. ValueError for rank < 2."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain=gain)
        self.gain = gain

    def _initialize(self, arr: Array) -> None:
        if arr.ndim < 2:
            raise ValueError(f"Orthogonal: the shape needs at least 2 axes, but it is {arr.shape}")
        rows, columns = arr.shape[0], math.prod(arr.shape[1:])
        drawn = seed.standard_normal(arr.size).reshape(max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(drawn)
        q = q * np.sign(np.diag(r))
        arr[...] = (self.gain * (q.T if rows < columns else q)).reshape(arr.shape)


class Identity(Initializer):
    """Ones on the diagonal of a matrix. ValueError for another rank."""

    def _initialize(self, arr: Array) -> None:
        if arr.ndim != 2:
            raise ValueError(f"Identity: the shape needs 2 axes, but it is {arr.shape}")
        arr[...] = np.eye(*arr.shape)


class Sparse(Initializer):
    """N(0, sigma squared) with ceil(sparsity * rows) zeros in each column. ValueError unless the rank is 2."""

    def __init__(self, sparsity: float, sigma: float = 0.01) -> None:
        super().__init__(sparsity=sparsity, sigma=sigma)
        self.sparsity, self.sigma = sparsity, _not_negative(sigma)

    def _initialize(self, arr: Array) -> None:
        if arr.ndim != 2:
            raise ValueError(f"Sparse: the shape needs 2 axes, but it is {arr.shape}")
        _normal(arr, self.sigma)
        order = seed.generator().random(arr.shape).argsort(axis=0)
        np.put_along_axis(arr, order[: math.ceil(self.sparsity * arr.shape[0])], 0, axis=0)


class Dirac(Initializer):
    """Convolution kernels that pass their input channels on: 1 at the centre where the channels match.

    ValueError unless the rank is 3 to 5 and the output channels can be divided into `groups`.
    """

    def __init__(self, groups: int = 1) -> None:
        super().__init__(groups=groups)
        self.groups = groups

    def _initialize(self, arr: Array) -> None:
        if not 3 <= arr.ndim <= 5:
            raise ValueError(f"Dirac: the shape needs 3 to 5 axes, but it is {arr.shape}")
        if self.groups < 1 or arr.shape[0] % self.groups:
            raise ValueError(f"Dirac: {arr.shape[0]} output channels cannot be divided into {self.groups} groups")
        arr[...] = 0
        each = arr.shape[0] // self.groups
        centre = tuple(size // 2 for size in arr.shape[2:])
        channel = np.arange(min(each, arr.shape[1]))
        for group in range(self.groups):
            arr[(group * each + channel, channel, *centre)] = 1


def _not_negative(sigma: float) -> float:
    if sigma < 0:
        raise ValueError(f"'sigma' has to be at least 0, but it is {sigma}")
    return sigma


_ALIASES: dict[str, type[Initializer]] = {
    "zeros": Zero, "zero": Zero, "ones": One, "one": One, "normal": Normal, "uniform": Uniform,
    "xavier_uniform": XavierUniform, "xavieruniform": XavierUniform, "xavier_normal": XavierNormal,
    "xaviernormal": XavierNormal, "he_uniform": HeUniform, "heuniform": HeUniform, "he_normal": HeNormal,
    "henormal": HeNormal, "truncatednormal": TruncatedNormal, "identity": Identity, "dirac": Dirac,
    "orthogonal": Orthogonal, "variancescaling": VarianceScaling, "sparse": Sparse,
}  # fmt: skip


# Names that MindSpore means for itself, but which own initializers of published networks import.


def _assignment(arr: Array, num: Any) -> Array:
    """Writes `num` into `arr` and returns it."""
    arr[...] = num
    return arr


def _calculate_fan_in_and_fan_out(shape: Any) -> tuple[int, int]:
    """(fan_in, fan_out) of a shape, or of a Tensor. ValueError for fewer than two axes."""
    return _fans(tuple(getattr(shape, "shape", shape)))


def _init_random_normal(mean: float, sigma: float, shape: tuple[int, ...]) -> Array:
    """Normal numbers of `shape`, float32."""
    out = np.empty(shape, np.float32)
    _normal(out, sigma, mean)
    return out


def _init_random_uniform(a: float, b: float, shape: tuple[int, ...]) -> Array:
    """Numbers of `shape` uniform in [a, b), float32."""
    return seed.generator().random(shape, np.float32) * np.float32(b - a) + np.float32(a)


def initializer(init: Any, shape: int | Sequence[int] | None = None, dtype: Type = float32) -> Tensor:
    """A Tensor of `shape` and `dtype` that `init` fills when it is first needed; a Tensor `init` is returned as it is.

    Args:
        init: the name of a class in any case ("normal", "zeros", "xavier_uniform" ...), a number, an Initializer, or a
            Tensor, whose shape has to be `shape` and whose dtype stays.

    Raises:
        TypeError: `init` is of another kind, or `dtype` is no mapcell dtype.
        ValueError: an unknown name, a shape with anything but positive ints, or not the Tensor's.
        AttributeError: no shape.
    """
    if isinstance(init, Tensor):
        return _checked_tensor(init, shape)
    return from_storage(lazy_init(init, shape, dtype))


def lazy_init(init: Any, shape: int | Sequence[int] | None, dtype: Type = float32) -> LazyInit:
    """The storage of what ``initializer`` gives for anything but a Tensor. Errors as there."""
    chosen = init if isinstance(init, Initializer) else _chosen(init)
    return LazyInit(chosen, _checked_shape(shape), check(dtype, "initializer").numpy)


def _checked_tensor(init: Tensor, shape: int | Sequence[int] | None) -> Tensor:
    wanted = (shape,) if isinstance(shape, int) else shape
    if wanted is None or tuple(wanted) != init.shape:
        raise ValueError(f"initializer: the Tensor has the shape {init.shape}, but {shape} was asked for")
    return init


def _chosen(init: Any) -> Initializer:
    if isinstance(init, str):
        return _named(init.lower())
    if isinstance(init, Number) and not isinstance(init, TensorCore):
        return Constant(init)
    raise TypeError(
        "initializer: 'init' has to be a Tensor, a number, a name or an Initializer (an instance of the class), "
        f"not {init!r}"
    )


@cache
def _named(name: str) -> Initializer:
    """The initializer of a class with its defaults; they hold no state, so one for all Parameters does."""
    if name not in _ALIASES:
        known = ", ".join(sorted(_ALIASES))
        raise ValueError(f"initializer: the class corresponding to {name!r} was not found; known: {known}")
    return _ALIASES[name]()


def _checked_shape(shape: int | Sequence[int] | None) -> tuple[int, ...]:
    if shape is None:
        raise AttributeError("initializer: 'shape' is missing")
    sizes = shape if isinstance(shape, list | tuple) else (shape,)
    for size in sizes:
        if type(size) is not int or size <= 0:
            raise ValueError(f"initializer: 'shape' consists of positive ints, but it is {shape!r}")
    return tuple(sizes)


__all__ = [
    "Constant", "Dirac", "HeNormal", "HeUniform", "Identity", "Initializer", "Normal", "One", "Orthogonal", "Sparse",
    "TruncatedNormal", "Uniform", "VarianceScaling", "XavierNormal", "XavierUniform", "Zero", "initializer",
]  # fmt: skip
