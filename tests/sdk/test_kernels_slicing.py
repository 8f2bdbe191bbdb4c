"""Parts of arrays by position, size and mask."""

import numpy as np
import pytest

from mapcell.kernels import slicing
from mapcell.kernels.slicing import Masks

A = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (slicing.narrow(A, 1, 1, 2), A[:, 1:3]),
        (slicing.narrow(A, 0, 3, 0), A[3:3]),
        (slicing.begin_size(A, (1, 0), (2, 3)), A[1:3, 0:3]),
        (slicing.begin_size(A, (1, 2), (-1, -1)), A[1:, 2:]),
        (slicing.strided(A, (0, 1), (3, 4), (2, 2)), A[0:3:2, 1:4:2]),
        (slicing.strided(A, (2,), (0,), (-1,)), A[2:0:-1]),
        (slicing.strided(A, (1, 1), (2, 2), (1, 1), Masks(begin=1, end=2)), A[:2, 1:]),
        (slicing.strided(A, (1, 1), (2, 3), (1, 1), Masks(shrink_axis=1)), A[1, 1:3]),
        (slicing.strided(A, (0, 1), (0, 3), (1, 1), Masks(ellipsis=1)), A[..., 1:3]),
        (slicing.strided(A, (0, 1), (0, 3), (1, 1), Masks(new_axis=1)), A[None, 1:3]),
    ],
)
def test_parts_are_views(got, want):
    """Each is what NumPy's slice gives, and shares its elements."""
    np.testing.assert_array_equal(got, want)
    assert got.size == 0 or np.shares_memory(got, A)


@pytest.mark.parametrize(
    "call",
    [
        lambda: slicing.narrow(A, 1, 3, 2),
        lambda: slicing.narrow(A, 1, -1, 1),
        lambda: slicing.begin_size(A, (0,), (1,)),
        lambda: slicing.begin_size(A, (2, 0), (2, 1)),
        lambda: slicing.strided(A, (0,), (1, 2), (1,)),
        lambda: slicing.strided(A, (0,), (1,), (0,)),
    ],
)
def test_what_reaches_outside(call):
    """ValueError, never a shorter part than asked for."""
    with pytest.raises(ValueError, match=r"narrow|slice"):
        call()


@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_diag_embed_is_undone_by_diagonal(offset):
    """For every diagonal and any pair of axes."""
    a = np.arange(1.0, 7).reshape(2, 3)
    out = slicing.diag_embed(a, offset, 0, 2)
    np.testing.assert_array_equal(np.diagonal(out, offset, 0, 2), a)
    assert np.count_nonzero(out) == a.size


def test_diag_of_all_doubles_the_axes():
    """a[i, j] stands at [i, j, i, j], zeros elsewhere."""
    out = slicing.diag_of_all(A + 1)
    assert out.shape == (3, 4, 3, 4)
    assert out[2, 1, 2, 1] == A[2, 1] + 1
    assert np.count_nonzero(out) == A.size
