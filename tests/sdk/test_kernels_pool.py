"""Pooling against loops that spell out the definition."""

from itertools import product

import numpy as np
import pytest

from mapcell.kernels import pool

CASES = [
    # x, kernel, stride, pads, dilation
    ((2, 3, 9), (3,), (2,), [(0, 0)], (1,)),
    ((1, 2, 7, 8), (3, 2), (2, 1), [(1, 1), (0, 1)], (1, 1)),
    ((1, 2, 7, 9), (2, 3), (1, 2), [(0, 0), (1, 1)], (2, 2)),
    ((1, 2, 4, 5, 6), (2, 3, 2), (2, 1, 2), [(0, 0), (1, 1), (0, 1)], (1, 1, 1)),
]


def places(x, kernel, stride, pads, dilation):
    """Every output position with the indices of its window's elements inside x, axis by axis."""
    n = len(kernel)
    sizes = [
        (size + sum(p) - (k - 1) * d - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[-n:], kernel, stride, pads, dilation, strict=True)
    ]
    for place in product(*map(range, sizes)):
        inside = [
            [i for i in (p * s - pad[0] + t * d for t in range(k)) if 0 <= i < size]
            for p, s, pad, d, k, size in zip(place, stride, pads, dilation, kernel, x.shape[-n:], strict=True)
        ]
        yield place, inside


@pytest.mark.parametrize(("shape", "kernel", "stride", "pads", "dilation"), CASES)
def test_max_pool_and_its_indices(shape, kernel, stride, pads, dilation):
    """The largest element of every window, and where it stands in its plane."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = pool.max_pool(x, kernel, stride, pads, dilation)
    values, where = pool.max_pool_with_indices(x, kernel, stride, pads, dilation)
    for place, inside in places(x, kernel, stride, pads, dilation):
        want = x[(..., *np.ix_(*inside))].max(axis=tuple(range(-len(kernel), 0)))
        np.testing.assert_array_equal(got[(..., *place)], want)
    np.testing.assert_array_equal(values, got)
    planes = x.reshape(*x.shape[: -len(kernel)], -1)
    flat = where.reshape(*where.shape[: -len(kernel)], -1)
    np.testing.assert_array_equal(np.take_along_axis(planes, flat, -1).reshape(got.shape), got)


@pytest.mark.parametrize(("shape", "kernel", "stride", "pads", "dilation"), CASES)
@pytest.mark.parametrize("count_padding", [True, False])
def test_avg_pool_counts_padding_as_told(shape, kernel, stride, pads, dilation, count_padding):
    """The divisor is the window's size, or the number of its real elements."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    counted = pads if count_padding else [(0, 0)] * len(kernel)
    got = pool.avg_pool(x, kernel, stride, pads, counted)
    for place, inside in places(x, kernel, stride, pads, (1,) * len(kernel)):
        total = x[(..., *np.ix_(*inside))].sum(axis=tuple(range(-len(kernel), 0)), dtype=np.float64)
        divisor = np.prod(kernel) if count_padding else np.prod([len(i) for i in inside])
        np.testing.assert_allclose(got[(..., *place)], total / divisor, rtol=1e-5, atol=1e-6)


def test_avg_pool_divisor_override():
    """A given divisor replaces the count."""
    x = np.ones((1, 1, 4), np.float32)
    assert pool.avg_pool(x, (2,), (2,), [(0, 0)], [(0, 0)], 5).tolist() == [[[0.4000000059604645] * 2]]


@pytest.mark.parametrize(
    ("shape", "sizes"), [((2, 7), (3,)), ((2, 5, 9), (2, 4)), ((1, 3, 4), (None, 6)), ((1, 4, 5, 6), (1, 2, 3))]
)
def test_adaptive_pools_cover_floor_to_ceil(shape, sizes):
    """Bin i covers floor(i n / o) to ceil((i + 1) n / o); None keeps an axis."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    n = len(sizes)
    out = [size if o is None else o for size, o in zip(shape[-n:], sizes, strict=True)]
    average = pool.adaptive_avg_pool(x, sizes)
    largest, where = pool.adaptive_max_pool(x, sizes)
    assert average.shape == largest.shape == where.shape == (*shape[:-n], *out)
    for place in product(*map(range, out)):
        cut = tuple(slice(i * s // o, -(-(i + 1) * s // o)) for i, o, s in zip(place, out, shape[-n:], strict=True))
        window, axes = x[(..., *cut)], tuple(range(-n, 0))
        np.testing.assert_allclose(average[(..., *place)], window.mean(axis=axes), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(largest[(..., *place)], window.max(axis=axes))
    planes = x.reshape(*shape[:-n], -1)
    picked = np.take_along_axis(planes, where.reshape(*where.shape[:-n], -1), -1)
    np.testing.assert_array_equal(picked.reshape(largest.shape), largest)


@pytest.mark.parametrize(
    ("n", "k", "s", "pad", "want"),
    [(5, 2, 2, (0, 0), (0, 1)), (4, 2, 2, (0, 0), (0, 0)), (5, 2, 3, (1, 1), (1, 1)), (3, 1, 3, (0, 0), (0, 0))],
)
def test_ceil_padding_never_starts_a_window_behind_the_input(n, k, s, pad, want):
    """Ceil mode adds what the last partial window lacks, unless that would start in the padding behind."""
    assert pool.ceil_padding((n,), (k,), (s,), [pad], (1,)) == [want]


def test_lp_pool_is_the_norm_of_each_window():
    """(3, 4) has the 2-norm 5."""
    np.testing.assert_allclose(
        pool.lp_pool(np.array([[3.0, 4.0]], np.float32), 2, (2,), (2,), [(0, 0)]), [[5]], rtol=1e-6
    )
