"""Looking up, writing copies and finding elements, in cases that can be told by hand."""

import numpy as np
import pytest

from mapcell.kernels import selection

TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_lookup_counts_negative_ids_from_the_end():
    """As MindSpore's Embedding on a CPU."""
    assert selection.lookup(TABLE, np.array([[0, -1]])).tolist() == [[[0, 1], [4, 5]]]


@pytest.mark.parametrize("index", [3, -4])
@pytest.mark.parametrize(
    "call",
    [
        lambda i: selection.lookup(TABLE, i),
        lambda i: selection.gather(TABLE, i, 0),
        lambda i: selection.gather_elements(TABLE, 0, i[None]),
        lambda i: selection.gather_nd(TABLE, i[:, None]),
        lambda i: selection.scatter_elements(TABLE, 0, i[None], i[None]),
        lambda i: selection.scatter_nd(TABLE, i[:, None], TABLE[:1]),
        lambda i: selection.index_fill(TABLE, 0, i, 0),
        lambda i: selection.index_add(TABLE, 0, i, TABLE[:1]),
    ],
)
def test_positions_outside_are_a_runtime_error(call, index):
    """Nothing is read or written out of bounds."""
    with pytest.raises(RuntimeError, match="within"):
        call(np.array([index]))


def test_floating_positions_are_a_type_error():
    """They are not truncated."""
    with pytest.raises(TypeError, match="integers"):
        selection.lookup(TABLE, np.array([1.0]))


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (1, 0, np.int64),
        (1.0, 0, np.float32),
        (np.ones(2, np.float16), 0.5, np.float16),
        (np.ones(2, np.int32), 0.5, np.float32),
        (np.ones(2, np.int32), np.ones(2, np.float64), np.float64),
    ],
)
def test_where_promotes(a, b, dtype):
    """Two numbers are Int64 or Float32; otherwise a number widens only across kinds."""
    assert selection.where(np.array([True, False]), a, b).dtype == dtype


@pytest.mark.parametrize(
    ("reduction", "want"),
    [("none", [9, 1, 2]), ("add", [12, 1, 2]), ("mul", [0, 1, 2]), ("max", [9, 1, 2]), ("min", [0, 1, 2])],
)
def test_scatter_combines_as_told(reduction, want):
    """Repeated positions combine one after the other; the input stays."""
    a = np.array([0.0, 1, 2], np.float32)
    got = selection.scatter_elements(a, 0, np.array([0, 0]), np.array([3.0, 9.0], np.float32), reduction)
    assert got.tolist() == want
    assert a.tolist() == [0, 1, 2]


def test_scatter_along_another_axis():
    """out[i][index[i][j]] = values[i][j]."""
    got = selection.scatter_elements(TABLE, 1, np.array([[1], [0]]), np.array([[7.0], [8.0]]))
    assert got.tolist() == [[0, 7], [8, 3], [4, 5]]


def test_unknown_reductions():
    """ValueError lists the known ones."""
    with pytest.raises(ValueError, match="none, add"):
        selection.scatter_elements(TABLE, 0, np.array([[0]]), TABLE[:1, :1], "mean")


def test_unique_keeps_the_order_of_first_occurrence():
    """And tells for each element which one it is."""
    values, inverse = selection.unique(np.array([[3, 1], [3, 2]], np.int32))
    assert values.tolist() == [3, 1, 2]
    assert inverse.tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("a", "values", "inverse", "lengths"),
    [([1, 1, 2, 1], [1, 2, 1], [0, 0, 1, 2], [2, 1, 1]), ([], [], [], []), ([5], [5], [0], [1])],
)
def test_unique_consecutive_finds_runs(a, values, inverse, lengths):
    """Only immediate repetitions are dropped; an empty array has no runs."""
    found = selection.unique_consecutive(np.array(a, np.int64))
    assert [part.tolist() for part in found] == [values, inverse, lengths]


@pytest.mark.parametrize(("right", "want"), [(False, [0, 1, 3]), (True, [0, 2, 3])])
def test_search_sorted(right, want):
    """Before or behind equal elements, for one row and for each of several."""
    row, values = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])
    assert selection.search_sorted(row, values, right).tolist() == want
    assert selection.search_sorted(np.stack([row, row]), np.stack([values, values]), right).tolist() == [want, want]


def test_segment_sum_leaves_negative_segments_out():
    """Segments need not be sorted."""
    got = selection.segment_sum(TABLE, np.array([1, -1, 1]), 2)
    assert got.tolist() == [[0, 0], [4, 6]]


def test_sequence_mask():
    """As many True as the length says."""
    assert selection.sequence_mask(np.array([0, 2])).tolist() == [[False, False], [True, True]]
    assert selection.sequence_mask(np.array([1]), 3).tolist() == [[True, False, False]]
