"""Convolution against loops that spell out the definition."""

from itertools import product

import numpy as np
import pytest

from mapcell.kernels.conv import conv, conv_transpose
from mapcell.kernels.windows import same_padding

CASES = [
    # x, weight, stride, pads, dilation, groups
    ((2, 3, 7), (4, 3, 3), (1,), [(0, 0)], (1,), 1),
    ((1, 4, 9), (6, 2, 2), (3,), [(2, 1)], (2,), 2),
    ((2, 3, 6, 5), (4, 3, 3, 2), (2, 1), [(1, 0), (0, 1)], (1, 1), 1),
    ((1, 4, 7, 8), (4, 1, 3, 3), (1, 2), [(1, 1), (2, 2)], (2, 1), 4),
    ((1, 2, 4, 5, 3), (3, 2, 2, 3, 2), (1, 2, 1), [(0, 1), (1, 1), (0, 0)], (1, 1, 1), 1),
    ((1, 2, 1, 1), (5, 2, 1, 1), (1, 1), [(0, 0), (0, 0)], (1, 1), 1),
]


def naive(x, weight, bias, stride, pads, dilation, groups):
    """One output element after the other, in float64."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
    kernel = weight.shape[2:]
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    per_in, per_out = weight.shape[1], weight.shape[0] // groups
    for o, place in product(range(weight.shape[0]), product(*map(range, sizes))):
        first = o // per_out * per_in
        taps = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d) for p, s, k, d in zip(place, stride, kernel, dilation, strict=True)
        )
        window = x[(slice(None), slice(first, first + per_in), *taps)]
        out[(slice(None), o, *place)] = (window * weight[o]).sum(axis=tuple(range(1, x.ndim))) + bias[o]
    return out


@pytest.mark.parametrize(("shape", "weight_shape", "stride", "pads", "dilation", "groups"), CASES)
def test_conv_is_the_sum_over_each_window(shape, weight_shape, stride, pads, dilation, groups):
    """Every rank, stride, padding, dilation and grouping gives what the definition says."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in (shape, weight_shape))
    bias = rng.standard_normal(weight_shape[0]).astype(np.float32)
    got = conv(x, weight, bias, stride, pads, dilation, groups)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, naive(x, weight, bias, stride, pads, dilation, groups), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "weight_shape", "stride", "pads", "dilation", "groups"), CASES)
def test_conv_transpose_is_the_adjoint_of_conv(shape, weight_shape, stride, pads, dilation, groups):
    """<conv(x), y> equals <x, conv_transpose(y)> for all x and y."""
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(s) for s in (shape, weight_shape))
    forward = conv(x, weight, None, stride, pads, dilation, groups)
    y = rng.standard_normal(forward.shape)
    # A stride that does not divide the input leaves elements over, which output_padding gives back.
    short = conv_transpose(y, weight, None, stride, pads, dilation, groups).shape[2:]
    more = [n - m for n, m in zip(shape[2:], short, strict=True)]
    back = conv_transpose(y, weight, None, stride, pads, dilation, groups, more)
    np.testing.assert_allclose(np.vdot(forward, y), np.vdot(x, back), rtol=1e-9)


def test_conv_transpose_output_padding_adds_zeros_and_bias():
    """Output padding enlarges the result at its ends, where only the bias is."""
    x, weight = np.ones((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32)
    out = conv_transpose(x, weight, np.array([5], np.float32), (2, 2), [(0, 0), (0, 0)], (1, 1), 1, (1, 0))
    assert out.shape == (1, 1, 5, 4)
    assert out[0, 0, :, 0].tolist() == [6, 6, 6, 6, 5]


def test_large_batches_are_convolved_in_parts(monkeypatch):
    """Splitting the batch to bound the copied windows changes nothing."""
    rng = np.random.default_rng(2)
    x, weight = (
        rng.standard_normal((5, 2, 6, 6)).astype(np.float32),
        rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
    )
    whole = conv(x, weight, None, (1, 1), [(0, 0)] * 2, (1, 1))
    monkeypatch.setattr("mapcell.kernels.conv._COLUMNS_BYTES", 1)
    np.testing.assert_allclose(conv(x, weight, None, (1, 1), [(0, 0)] * 2, (1, 1)), whole, rtol=1e-5, atol=1e-6)


def test_half_precision_is_rounded_once():
    """float16 gives the float32 result rounded, though its own sums would saturate at 2048."""
    x, weight = np.ones((1, 4096, 1), np.float16), np.ones((1, 4096, 1), np.float16)
    out = conv(x, weight, None, (1,), [(0, 0)], (1,))
    assert out.dtype == np.float16
    assert out.item() == 4096


@pytest.mark.parametrize(
    ("n", "k", "s", "d", "want"),
    [(9, 3, 1, 1, (1, 1)), (9, 4, 2, 1, (1, 2)), (4, 1, 3, 1, (0, 0)), (8, 3, 1, 2, (2, 2))],
)
def test_same_padding_puts_the_smaller_half_first(n, k, s, d, want):
    """The output of 'same' has ceil(n / stride) elements."""
    assert same_padding((n,), (k,), (s,), (d,)) == [want]


@pytest.mark.parametrize(
    ("x", "weight", "groups", "error"),
    [
        ((1, 2, 5, 5), (3, 3, 3, 3), 1, ValueError),
        ((2, 5, 5), (3, 2, 3, 3), 1, ValueError),
        ((1, 2, 2, 2), (3, 2, 3, 3), 1, ValueError),
        ((1, 4, 5, 5), (3, 2, 3, 3), 2, ValueError),
    ],
)
def test_misfits_are_named(x, weight, groups, error):
    """Wrong channels, ranks, windows and groups raise."""
    with pytest.raises(error):
        conv(np.zeros(x, np.float32), np.zeros(weight, np.float32), None, (1, 1), [(0, 0)] * 2, (1, 1), groups)


def test_dtypes_have_to_agree():
    """There is no silent promotion of a weight, which would copy it."""
    with pytest.raises(TypeError, match="same dtype"):
        conv(np.zeros((1, 1, 3)), np.zeros((1, 1, 2), np.float32), None, (1,), [(0, 0)], (1,))
