"""Attention against its formula for one head of one sample."""

import numpy as np
import pytest

from mapcell.kernels import attention

RANDOM = np.random.RandomState(0)


def floats(*shape):
    """Standard normal float32 numbers."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def one_head(q, k, v, mask):
    """softmax(q @ k.T / sqrt(width) + mask) @ v in float64."""
    scores = q.astype(np.float64) @ k.T.astype(np.float64) / np.sqrt(q.shape[-1]) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ v, weights


def test_attend_head_by_head():
    """Every head of every sample by itself, with a mask of its own."""
    q, k, v, mask = floats(2, 3, 4, 5), floats(2, 3, 6, 5), floats(2, 3, 6, 5), floats(2, 3, 4, 6)
    out, weights = attention.attend(q, k, v, mask)
    for place in np.ndindex(2, 3):
        want, want_weights = one_head(q[place], k[place], v[place], mask[place])
        np.testing.assert_allclose(out[place], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[place], want_weights, rtol=1e-5, atol=1e-6)


def test_hidden_positions_have_no_weight():
    """What is masked out contributes nothing, and a query that sees nothing gives zeros."""
    q, v = floats(1, 1, 2, 4), floats(1, 1, 3, 4)
    hidden = np.array([[False, True, True], [True, True, True]])
    out, weights = attention.attend(q, v, v, attention.joined_mask(hidden, None, 1, 1, np.dtype(np.float32)))
    assert weights[0, 0].tolist() == [[1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(out[0, 0], [v[0, 0, 0], np.zeros(4)])


def test_heads_are_split_as_views_and_merged_back():
    """Splitting shares the elements; merging after it gives the input."""
    x = floats(5, 2, 6)
    parts = attention.split_heads(x, 3)
    assert parts.shape == (2, 3, 5, 2)
    assert np.shares_memory(parts, x)
    np.testing.assert_array_equal(attention.merge_heads(parts), x)


def test_masks_are_joined():
    """A mask of pairs, one for each head, and one of padding are added; True hides."""
    dtype = np.dtype(np.float32)
    pairs, padding = np.zeros((2, 3), np.float32), np.array([[False, False, True], [False, True, False]])
    assert attention.joined_mask(None, None, 2, 4, dtype) is None
    assert attention.joined_mask(pairs, None, 2, 4, dtype).shape == (2, 3)
    assert attention.joined_mask(np.zeros((8, 2, 3), np.float32), None, 2, 4, dtype).shape == (2, 4, 2, 3)
    both = attention.joined_mask(pairs, padding, 2, 4, dtype)
    assert both.shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(np.isneginf(both[:, 0, 0]), padding)


@pytest.mark.parametrize(
    ("pairs", "padding"),
    [(np.zeros(3), None), (np.zeros((7, 2, 3)), None), (None, np.zeros(3)), (None, np.zeros((3, 3)))],
)
def test_masks_of_other_shapes(pairs, padding):
    """What belongs to no batch of 2 with 4 heads is a ValueError."""
    with pytest.raises(ValueError, match="mask"):
        attention.joined_mask(pairs, padding, 2, 4, np.dtype(np.float32))
