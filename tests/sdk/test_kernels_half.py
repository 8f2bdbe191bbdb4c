"""Low precision is computed in float32 and rounded once, whatever the kernel."""

import ml_dtypes
import numpy as np
import pytest

from mapcell.kernels import activation, attention, conv, linear, loss, norm, padding, pool, recurrent, resize, scan
from mapcell.kernels.half import in_float32

RANDOM = np.random.RandomState(0)
ROWS = RANDOM.standard_normal((6, 8))
IMAGES = RANDOM.standard_normal((2, 4, 6, 6))
WEIGHT = RANDOM.standard_normal((5, 8))

KERNELS = {
    **{
        name: (getattr(activation, name), (ROWS,))
        for name in [
            "celu",
            "elu",
            "fast_gelu",
            "gelu",
            "gelu_tanh",
            "glu",
            "hard_shrink",
            "hard_sigmoid",
            "hard_swish",
            "hard_tanh",
            "leaky_relu",
            "log_sigmoid",
            "log_softmax",
            "mish",
            "relu",
            "relu6",
            "selu",
            "sigmoid",
            "silu",
            "soft_shrink",
            "softmax",
            "softplus",
            "softsign",
            "swiglu",
            "tanh_shrink",
        ]
    },
    "dense": (linear.dense, (ROWS, WEIGHT, WEIGHT[:, 0])),
    "batch_matmul": (lambda a, b: linear.batch_matmul(a, b, False, True), (ROWS, WEIGHT)),
    "cosine_similarity": (linear.cosine_similarity, (ROWS, ROWS[::-1])),
    "layer_norm": (lambda x, g: norm.layer_norm(x, g, g, 1, 1e-5)[0], (ROWS, ROWS[0])),
    "rms_norm": (lambda x, g: norm.rms_norm(x, g, 1e-5)[0], (ROWS, ROWS[0])),
    "group_norm": (lambda x: norm.group_norm(x, 2, None, None, 1e-5)[0], (IMAGES,)),
    "conv": (lambda x, w: conv.conv(x, w, None, (1, 1), ((1, 1), (0, 0)), (1, 1)), (IMAGES, IMAGES[:, :, :3, :3])),
    "max_pool": (lambda x: pool.max_pool(x, (2, 2), (2, 2), ((0, 0),) * 2, (1, 1)), (IMAGES,)),
    "avg_pool": (lambda x: pool.avg_pool(x, (3, 3), (2, 2), ((0, 0),) * 2, ((0, 0),) * 2), (IMAGES,)),
    "adaptive_avg_pool": (lambda x: pool.adaptive_avg_pool(x, (3, 4)), (IMAGES,)),
    "bilinear": (lambda x: resize.interpolate(x, (9, 4), (None, None), "bilinear"), (IMAGES,)),
    "attention": (lambda q, k: attention.attend(q, k, k, None)[0], (IMAGES, IMAGES[..., ::-1, :])),
    "mean squared error": (lambda a, b: loss.reduced(loss.squared_error(a, b), "mean"), (ROWS, ROWS[::-1])),
    "logcumsumexp": (lambda a: scan.logcumsumexp(a, 1), (ROWS,)),
    "constant padding": (lambda a: padding.pad(a, [(1, 0), (0, 1)], "constant", 0.5), (ROWS,)),
}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_round_once(name, dtype):
    """The result is the one in float32, rounded to the inputs' type."""
    kernel, inputs = KERNELS[name]
    low = [x.astype(dtype) for x in inputs]
    want = kernel(*(x.astype(np.float32) for x in low))
    got = kernel(*low)
    assert want.dtype == np.float32
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want.astype(dtype))


def test_recurrent_layers_round_each_output_once():
    """Arrays inside tuples, as states and weights are, count too."""
    shapes = ((3, 2, 4), (2, 5), (2, 5), (20, 4), (20, 5), (20,), (20,))
    x, h, c, *weights = (RANDOM.standard_normal(s).astype(np.float16) for s in shapes)
    out, (last_h, last_c) = recurrent.lstm(x, (h, c), tuple(weights))
    wide = [a.astype(np.float32) for a in (x, h, c, *weights)]
    want, (want_h, want_c) = recurrent.lstm(wide[0], (wide[1], wide[2]), tuple(wide[3:]))
    for got, expected in ((out, want), (last_h, want_h), (last_c, want_c)):
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, expected.astype(np.float16))


def test_results_of_other_types_stay():
    """Positions next to low-precision values are not touched, and scalars become arrays."""

    @in_float32
    def both(x):
        return x.max(), x.argmax()

    value, where = both(np.array([1, 3, 2], np.float16))
    assert (value.dtype, value.shape, where.dtype) == (np.float16, (), np.int64)


def test_float64_stays_float64():
    """Only what is narrower than float32 is widened."""
    assert activation.gelu(np.ones(3)).dtype == np.float64
    np.testing.assert_allclose(activation.gelu(np.ones(3)), 0.8413447460685429, rtol=1e-15)
