"""Elementwise kernels beyond arithmetic."""

import numpy as np
import pytest
from scipy import special

from mapcell.kernels import elementwise

X = np.array([-2.5, -1.0, -0.25, 0.0, 0.5, 1.75, 3.0], np.float32)
Y = np.array([0.5, 2.0, -3.0, 1.0, 4.0, -0.5, 2.0], np.float32)

UNARY = {
    "frac": lambda a: a - np.trunc(a),
    "sinc": np.sinc,
    "deg2rad": np.deg2rad,
    "rad2deg": np.rad2deg,
    "signbit": np.signbit,
    "isneginf": np.isneginf,
    "isposinf": np.isposinf,
    "isreal": np.isreal,
    "positive": lambda a: a,
    "erf": special.erf,
    "lgamma": special.gammaln,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "rsqrt": lambda a: 1 / np.sqrt(a),
}

BINARY = {
    "fmax": np.fmax,
    "fmin": np.fmin,
    "hypot": np.hypot,
    "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2,
    "copysign": np.copysign,
    "heaviside": np.heaviside,
    "ldexp": lambda a, b: a * 2.0**b,
    "xlogy": special.xlogy,
    "xdivy": lambda a, b: np.where(a == 0, 0, a / b),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    """The function of each element; nothing warns outside its domain."""
    with np.errstate(all="ignore"):
        want = UNARY[name](X.astype(np.float64))
    np.testing.assert_allclose(elementwise.UNARY[name](X), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    """The function of each pair, in float32."""
    with np.errstate(all="ignore"):
        want = BINARY[name](X.astype(np.float64), Y.astype(np.float64))
    got = elementwise.BINARY[name](X, Y)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "want"), [("gcd", [2, 3]), ("lcm", [12, 9])])
def test_integer_functions(name, want):
    """Of integers only; floats are a TypeError."""
    assert elementwise.BINARY[name](np.array([4, 9]), np.array([6, 3])).tolist() == want
    with pytest.raises(TypeError, match="integers"):
        elementwise.BINARY[name](X, Y)


@pytest.mark.parametrize(
    ("a", "b", "mode", "want", "dtype"),
    [
        ([7, -7], 2, None, [3.5, -3.5], np.float32),
        ([7, -7], 2, "floor", [3, -4], np.int32),
        ([7, -7], 2, "trunc", [3, -3], np.int32),
        ([16777217], 1, "trunc", [16777217], np.int32),
        ([7.5, -7.5], 2, "floor", [3, -4], np.float32),
        ([7.5, -7.5], 2, "trunc", [3, -3], np.float32),
    ],
)
def test_div_rounds_as_told(a, b, mode, want, dtype):
    """Rounded quotients of integers are integers, exactly."""
    array = np.array(a, np.int32 if isinstance(a[0], int) else np.float32)
    got = elementwise.div(array, b, mode)
    assert (got.tolist(), got.dtype) == (want, dtype)


def test_div_knows_two_roundings():
    """ValueError for another."""
    with pytest.raises(ValueError, match="rounding_mode"):
        elementwise.div(X, 2, "up")


@pytest.mark.parametrize(
    ("low", "high", "want"), [(0, 1, [0, 0, 1]), (None, 1, [-2, 0, 1]), (0, None, [0, 0, 3]), (2, 1, [1, 1, 1])]
)
def test_clamp(low, high, want):
    """Where the bounds cross, the upper one wins."""
    assert elementwise.clamp(np.array([-2, 0, 3]), low, high).tolist() == want


def test_clamp_needs_a_bound():
    """ValueError without any; a floating bound widens integers."""
    with pytest.raises(ValueError, match="min"):
        elementwise.clamp(X)
    assert elementwise.clamp(np.array([1, 2]), 0, 1.5).dtype == np.float32


def test_compositions():
    """lerp, addcmul, addcdiv and logit by their formulas."""
    half = np.float32(0.5)
    np.testing.assert_allclose(elementwise.lerp(X, Y, 0.25), X + 0.25 * (Y - X), rtol=1e-6)
    np.testing.assert_allclose(elementwise.addcmul(X, Y, Y, 2), X + 2 * Y * Y, rtol=1e-6)
    np.testing.assert_allclose(elementwise.addcdiv(X, Y, Y, half), X + 0.5, rtol=1e-6)
    np.testing.assert_allclose(elementwise.logit(np.array([0.25], np.float32)), [np.log(1 / 3)], rtol=1e-6)
    assert np.isfinite(elementwise.logit(np.array([0.0, 1.0], np.float32), 1e-3)).all()


def test_is_close():
    """NaN are close to each other only if told."""
    a = np.array([1.0, np.nan], np.float32)
    assert elementwise.is_close(a, a + np.float32(1e-7)).tolist() == [True, False]
    assert elementwise.is_close(a, a, equal_nan=True).tolist() == [True, True]
