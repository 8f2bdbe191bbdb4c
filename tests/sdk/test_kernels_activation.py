"""Activations against their formulas in float64, at ordinary and at extreme values."""

import numpy as np
import pytest
from scipy import special

from mapcell.kernels import activation

X = np.array([-1e4, -90.0, -3.5, -1.0, -0.4, -1e-3, 0.0, 1e-3, 0.3, 1.0, 2.9, 3.1, 6.5, 90.0, 1e4])


def softplus(x):
    """log(1 + exp(x)) in float64, without overflow."""
    return np.logaddexp(x, 0)


FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.2 * x, x),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "celu": lambda x: np.maximum(x, 0) + np.minimum(0, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "fast_gelu": lambda x: x * np.exp(0.851 * (x - np.abs(x))) / (1 + np.exp(-1.702 * np.abs(x))),
    "sigmoid": special.expit,
    "silu": lambda x: x * special.expit(x),
    "softplus": softplus,
    "mish": lambda x: x * np.tanh(softplus(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hard_swish": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    """Within 1e-6 of the formula, relatively or of 1, and of float32."""
    got = getattr(activation, name)(X.astype(np.float32))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, FORMULAS[name](X.astype(np.float32).astype(np.float64)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_inputs_are_left_alone(name):
    """No kernel writes into its input, read-only as shared memory is, and layouts do not matter."""
    x = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3) - 3)
    x.flags.writeable = False
    got = getattr(activation, name)(x)
    np.testing.assert_array_equal(got, getattr(activation, name)(np.ascontiguousarray(x)))
    np.testing.assert_array_equal(x, np.arange(6).reshape(2, 3) - 3)


@pytest.mark.parametrize("name", FORMULAS)
def test_shape_without_axes(name):
    """A scalar gives an array of shape ()."""
    assert getattr(activation, name)(np.asarray(0.5, np.float32)).shape == ()


@pytest.mark.parametrize("name", ["gelu", "sigmoid", "silu", "softmax", "mish", "relu"])
def test_nan_stays_nan(name):
    """What is not a number does not become one."""
    assert np.isnan(getattr(activation, name)(np.array([np.nan, np.nan], np.float32))).all()


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1)])
def test_softmax_sums_to_one(axis):
    """Along the axis, also for numbers whose exponential overflows."""
    x = np.array([[1000.0, 999.0, -1000.0], [0.0, -np.inf, 5.0]], np.float32)
    np.testing.assert_allclose(activation.softmax(x, axis).sum(axis), 1, rtol=1e-6)


def test_softmax_of_nothing_but_minus_infinity_is_zero():
    """A row that is masked out completely gives zeros, as MindSpore's does on a CPU, and the others are not touched."""
    x = np.array([[-np.inf, -np.inf], [0.0, 0.0]], np.float32)
    assert activation.softmax(x).tolist() == [[0, 0], [0.5, 0.5]]


def test_log_softmax_is_exact_where_softmax_underflows():
    """log(exp(-200)) is -200, not minus infinity."""
    np.testing.assert_allclose(activation.log_softmax(np.array([200.0, 0.0], np.float32)), [0, -200])


def test_prelu_takes_a_weight_for_each_channel():
    """Channels are axis 1."""
    x = -np.ones((1, 2, 2), np.float32)
    assert activation.prelu(x, np.array([0.5, 2], np.float32)).tolist() == [[[-0.5, -0.5], [-2, -2]]]


@pytest.mark.parametrize(("kernel", "want"), [(activation.glu, 2 * 0.5), (activation.swiglu, 0)])
def test_gated_units_halve_the_axis(kernel, want):
    """glu is a * sigmoid(b), swiglu silu(a) * b; an odd axis raises."""
    assert kernel(np.array([[2.0, 0.0]], np.float32)).tolist() == [[want]]
    with pytest.raises(ValueError, match="odd"):
        kernel(np.ones((1, 3), np.float32))


@pytest.mark.parametrize(("x", "want"), [([0.0, 0.2, 0.1], [9, np.float32(0.2), 9])])
def test_threshold_replaces_what_is_not_above(x, want):
    """The bound itself is replaced too."""
    assert activation.threshold(np.array(x, np.float32), 0.1, 9).tolist() == pytest.approx(want)
