"""Products of matrices: against NumPy in float64, and without copies of weights."""

import tracemalloc

import numpy as np
import pytest

from mapcell.kernels import linear

RANDOM = np.random.RandomState(0)


def floats(*shape):
    """Standard normal float32 numbers."""
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8), (2, 1, 3, 8), (0, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_dense_of_any_rank(shape, with_bias):
    """x @ weight.T + bias for every number of leading axes, also an empty batch."""
    x, weight, bias = floats(*shape), floats(5, 8), floats(5) if with_bias else None
    want = x.astype(np.float64) @ weight.T.astype(np.float64) + (0 if bias is None else bias)
    got = linear.dense(x, weight, bias)
    assert got.shape == (*shape[:-1], 5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_dense_copies_no_weight():
    """Peak memory of a product stays below the weight's size: BLAS reads it transposed where it lies."""
    weight = floats(2048, 1024)
    weight.flags.writeable = False
    x = floats(2, 1024)
    linear.dense(x, weight)
    tracemalloc.start()
    linear.dense(x, weight)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weight.nbytes / 100


def test_dense_takes_parts_of_a_joint_weight():
    """Rows of a larger weight, as attention projections are, and a transposed one give the same."""
    joint, x = floats(9, 4), floats(3, 4)
    np.testing.assert_allclose(linear.dense(x, joint[3:6]), linear.dense(x, joint[3:6].copy()), rtol=1e-6)
    turned = np.asfortranarray(joint)
    np.testing.assert_allclose(linear.dense(x, turned), linear.dense(x, joint), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "error"),
    [
        (np.ones((2, 3), np.float32), np.ones((4, 5), np.float32), None, ValueError),
        (np.ones((), np.float32), np.ones((4, 1), np.float32), None, ValueError),
        (np.ones((2, 3), np.float32), np.ones((4, 3)), None, TypeError),
        (np.ones((2, 3), np.int32), np.ones((4, 3), np.float32), None, TypeError),
        (np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), np.ones(4, np.float16), TypeError),
    ],
)
def test_dense_refuses_what_does_not_fit(x, weight, bias, error):
    """Widths are a ValueError, dtypes a TypeError: a silent cast would copy the weight."""
    with pytest.raises(error):
        linear.dense(x, weight, bias)


@pytest.mark.parametrize("transpose_a", [True, False])
@pytest.mark.parametrize("transpose_b", [True, False])
def test_batch_matmul_reads_transposed(transpose_a, transpose_b):
    """Either operand may be stored the other way round; leading axes broadcast."""
    a, b = floats(2, 1, 3, 4), floats(5, 4, 6)
    left = np.ascontiguousarray(a.swapaxes(-1, -2)) if transpose_a else a
    right = np.ascontiguousarray(b.swapaxes(-1, -2)) if transpose_b else b
    got = linear.batch_matmul(left, right, transpose_a, transpose_b)
    np.testing.assert_allclose(got, a @ b, rtol=1e-5, atol=1e-5)


def test_bidense_is_a_bilinear_form():
    """out[b, o] = x[b] @ weight[o] @ y[b] + bias[o]."""
    x, y, weight, bias = floats(2, 3), floats(2, 4), floats(5, 3, 4), floats(5)
    want = np.array([[x[b] @ weight[o] @ y[b] + bias[o] for o in range(5)] for b in range(2)])
    np.testing.assert_allclose(linear.bidense(x, y, weight, bias), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "shapes"), [("ij,jk->ik", ((2, 3), (3, 4))), ("bhld,bhsd->bhls", ((1, 2, 3, 4),) * 2)]
)
def test_einsum(equation, shapes):
    """As NumPy's."""
    operands = [floats(*s) for s in shapes]
    np.testing.assert_allclose(linear.einsum(equation, *operands), np.einsum(equation, *operands), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (2, 1), (0.5, -3)])
def test_addmm_scales_both_parts(beta, alpha):
    """beta * x + alpha * (a @ b), without touching x."""
    x, a, b = floats(2, 4), floats(2, 3), floats(3, 4)
    before = x.copy()
    np.testing.assert_allclose(
        linear.addmm(x, a, b, beta, alpha), beta * before + alpha * (a @ b), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(x, before)


def test_cross_finds_the_axis_of_three():
    """The first axis of 3 elements unless told; ValueError when there is none."""
    a, b = floats(2, 3, 4), floats(2, 3, 4)
    np.testing.assert_allclose(linear.cross(a, b), np.cross(a, b, axis=1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="3 elements"):
        linear.cross(floats(2, 4), floats(2, 4))


@pytest.mark.parametrize("p", [0, 1, 2.0, np.inf])
def test_cdist(p):
    """The p-norm of every difference of rows."""
    a, b = floats(2, 3, 4), floats(2, 5, 4)
    want = [[[np.linalg.norm(u - v, ord=p) for v in bs] for u in as_] for as_, bs in zip(a, b, strict=True)]
    np.testing.assert_allclose(linear.cdist(a, b, p), want, rtol=1e-5, atol=1e-6)


def test_batch_dot_contracts_the_named_axes():
    """Each sample by itself; two vectors give one column."""
    a, b = floats(2, 3, 4), floats(2, 5, 4)
    np.testing.assert_allclose(linear.batch_dot(a, b, 2, 2), np.einsum("nij,nkj->nik", a, b), rtol=1e-5, atol=1e-5)
    assert linear.batch_dot(floats(2, 3), floats(2, 3), 1, 1).shape == (2, 1)
