"""Normalisation against its definition in float64."""

import numpy as np
import pytest

from mapcell.kernels import norm

RANDOM = np.random.RandomState(0)


def floats(*shape):
    """Normal float32 numbers around 3: statistics have to cope with a mean far from zero."""
    return (RANDOM.standard_normal(shape) + 3).astype(np.float32)


def normalised(x, axes, eps):
    """(x - mean) / sqrt(var + eps) over `axes`, in float64."""
    wide = x.astype(np.float64)
    return (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm_over_the_last_axes(axes):
    """Any number of last axes, with gamma and beta of their shape; mean and variance come along."""
    x = floats(2, 3, 4)
    gamma, beta = floats(*x.shape[-axes:]), floats(*x.shape[-axes:])
    out, mean, var = norm.layer_norm(x, gamma, beta, axes, 1e-5)
    over = tuple(range(-axes, 0))
    np.testing.assert_allclose(out, normalised(x, over, 1e-5) * gamma + beta, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean, x.mean(over, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(var, x.var(over, keepdims=True), rtol=1e-4)


def test_layer_norm_of_constant_rows_is_beta():
    """The variance is 0 and eps keeps the quotient finite."""
    out, _, _ = norm.layer_norm(np.full((2, 5), 7, np.float32), None, np.arange(5, dtype=np.float32), 1, 1e-7)
    assert out.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_layer_norm_leaves_its_input_alone():
    """Everything happens in the result's own buffer."""
    x = floats(3, 4)
    x.flags.writeable = False
    norm.layer_norm(x, x[0], x[0], 1, 1e-5)


def test_rms_norm_divides_by_the_root_mean_square():
    """Without centring; the reciprocal root comes along."""
    x, gamma = floats(2, 3, 4), floats(4)
    out, rstd = norm.rms_norm(x, gamma, 1e-6)
    root = np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(out, x / root * gamma, rtol=1e-5)
    np.testing.assert_allclose(rstd, 1 / root, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("spatial", [(), (5,), (2, 3)])
def test_group_norm_over_groups_of_channels(groups, spatial):
    """Each group of each sample by itself, over channels and positions."""
    x, gamma, beta = floats(2, 6, *spatial), floats(6), floats(6)
    parts = normalised(x.reshape(2, groups, -1), (2,), 1e-5).reshape(x.shape)
    shape = (1, 6, *(1,) * len(spatial))
    want = parts * gamma.reshape(shape) + beta.reshape(shape)
    np.testing.assert_allclose(norm.group_norm(x, groups, gamma, beta, 1e-5)[0], want, rtol=1e-3, atol=1e-3)


def test_batch_statistics_and_their_use():
    """Normalising by a batch's own statistics gives mean 0 and variance 1 in every channel."""
    x = floats(4, 3, 5)
    mean, var = norm.channel_statistics(x)
    out = norm.scale_and_shift(x, mean, var, None, None, 0)
    np.testing.assert_allclose(out.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.var((0, 2)), 1, rtol=1e-4)


def test_instance_norm_treats_every_channel_alone():
    """As group normalisation with as many groups as channels."""
    x, gamma = floats(2, 3, 8), floats(3)
    want = normalised(x, (2,), 1e-5) * gamma[:, None]
    np.testing.assert_allclose(norm.instance_norm(x, gamma, None, 1e-5), want, rtol=1e-4, atol=1e-4)


def test_local_response_norm_sums_over_neighbouring_channels():
    """Channels beyond the ends count as zeros."""
    x = np.ones((1, 3, 1), np.float32)
    out = norm.local_response_norm(x, 1, 1, 1, 1)
    np.testing.assert_allclose(out[0, :, 0], [1 / 3, 1 / 4, 1 / 3], rtol=1e-6)


def test_l2_normalize_bounds_the_norm_from_below():
    """A zero vector stays zero."""
    out = norm.l2_normalize(np.array([[3, 4], [0, 0]], np.float32), 1, 1e-4)
    np.testing.assert_allclose(out, [[0.6, 0.8], [0, 0]], rtol=1e-6)
