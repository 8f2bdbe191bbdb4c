"""Running extremes, medians, differences and integrals in cases that can be told by hand."""

import numpy as np
import pytest

from mapcell.kernels import scan


@pytest.mark.parametrize(
    ("choose", "values", "where"),
    [(np.maximum, [1, 3, 3, 3, 4], [0, 1, 1, 3, 4]), (np.minimum, [1, 1, 1, 1, 1], [0, 0, 0, 0, 0])],
)
def test_running_extremes_and_where_they_were_last(choose, values, where):
    """The position is the latest that holds the extreme."""
    got, at = scan.running(choose, np.array([1, 3, 2, 3, 4], np.int32), 0)
    assert (got.tolist(), at.tolist(), got.dtype, at.dtype) == (values, where, np.int32, np.int64)


@pytest.mark.parametrize(
    ("a", "value", "where"), [([3, 1, 2], 2, 2), ([4, 1, 3, 2], 2, 3), ([7], 7, 0), ([2, 2, 1, 3], 2, 0)]
)
def test_median_is_the_lower_one(a, value, where):
    """Of an even number of elements the smaller middle one, and the first position that holds it."""
    got, at = scan.median(np.array(a), 0)
    assert (got, at) == (value, where)


def test_median_keeps_the_axis_if_told():
    """Size 1 instead of none."""
    got, at = scan.median(np.zeros((2, 3)), 1, True)
    assert got.shape == at.shape == (2, 1)


def test_logcumsumexp_does_not_overflow():
    """log(e^1000 + e^1000) is 1000 + log 2."""
    got = scan.logcumsumexp(np.array([1000.0, 1000.0]), 0)
    np.testing.assert_allclose(got, [1000, 1000 + np.log(2)])


@pytest.mark.parametrize(("n", "want"), [(0, [1, 4, 9]), (1, [3, 5]), (2, [2])])
def test_diff(n, want):
    """Neighbours' differences, taken n times."""
    assert scan.diff(np.array([1, 4, 9]), n).tolist() == want


@pytest.mark.parametrize(
    ("x", "dx", "axis", "want"),
    [
        (None, 1.0, -1, [1.0, 5.0]),
        (None, 0.5, -1, [0.5, 2.5]),
        (np.array([0.0, 4.0]), 1.0, -1, [4.0, 20.0]),
        (None, 1.0, 0, [2.0, 4.0]),
        (np.array([1.0, 4.0]), 1.0, 0, [6.0, 12.0]),
    ],
)
def test_trapezoid(x, dx, axis, want):
    """Over a constant step or given points, along any axis."""
    y = np.array([[0.0, 2.0], [4.0, 6.0]])
    assert scan.trapezoid(y, x, dx, axis).tolist() == want
