"""Resizing against cases that can be told by hand."""

import numpy as np
import pytest

from mapcell.kernels import resize

ROW = np.array([[[0.0, 1.0, 2.0]]], np.float32)


def row(out, mode, align_corners=False, scale=None):
    """The three elements of ROW resized to `out`."""
    return resize.interpolate(ROW, (out,), (scale,), mode, align_corners)[0, 0].tolist()


@pytest.mark.parametrize(
    ("out", "mode", "align", "want"),
    [
        (6, "nearest", False, [0, 0, 1, 1, 2, 2]),
        (2, "nearest", False, [0, 1]),
        (5, "nearest", False, [0, 0, 1, 1, 2]),
        (5, "nearest-exact", False, [0, 0, 1, 2, 2]),
        (6, "linear", False, [0, 0.25, 0.75, 1.25, 1.75, 2]),
        (5, "linear", True, [0, 0.5, 1, 1.5, 2]),
        (1, "linear", True, [0]),
        (3, "linear", False, [0, 1, 2]),
        (3, "bicubic", False, [0, 1, 2]),
        (2, "area", False, [0.5, 1.5]),
    ],
)
def test_rows(out, mode, align, want):
    """Half-pixel centres unless the corners are aligned; a row of its own size is itself."""
    assert row(out, mode, align) == pytest.approx(want)


def test_a_scale_decides_where_sources_lie():
    """With a factor of 2.5 the sources of 7 elements lie elsewhere than with the ratio 7 / 3."""
    assert row(7, "nearest", scale=2.5) == [0, 0, 0, 1, 1, 2, 2]
    assert row(7, "nearest") == [0, 0, 0, 1, 1, 2, 2]
    assert row(7, "linear", scale=2.5) != pytest.approx(row(7, "linear"))


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_constant_images_stay_constant(mode, align):
    """The weights of every output element add up to 1, also at the edges."""
    x = np.full((1, 2, 4, 3), 5, np.float32)
    np.testing.assert_allclose(resize.interpolate(x, (7, 5), (None, None), mode, align), 5, rtol=1e-6)


def test_axes_are_resized_independently():
    """Two axes at once are one after the other."""
    x = np.random.RandomState(0).standard_normal((1, 1, 3, 4)).astype(np.float32)
    both = resize.interpolate(x, (5, 6), (None, None), "bilinear")
    rows = resize.resample(x, [resize.linear(3, 5, None, False), None])
    np.testing.assert_allclose(resize.resample(rows, [None, resize.linear(4, 6, None, False)]), both, rtol=1e-6)


def test_unknown_modes():
    """ValueError names it."""
    with pytest.raises(ValueError, match="cubical"):
        row(3, "cubical")


def test_pixel_shuffle_and_back():
    """Channels become space in rows of r, and the reverse gives the input."""
    x = np.arange(8, dtype=np.float32).reshape(1, 4, 1, 2)
    shuffled = resize.pixel_shuffle(x, 2)
    assert shuffled[0, 0].tolist() == [[0, 2, 1, 3], [4, 6, 5, 7]]
    np.testing.assert_array_equal(resize.pixel_unshuffle(shuffled, 2), x)


def test_channel_shuffle_interleaves_groups():
    """Groups (0 1 2) and (3 4 5) become 0 3 1 4 2 5."""
    x = np.arange(6).reshape(1, 6, 1)
    assert resize.channel_shuffle(x, 2).ravel().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: resize.pixel_shuffle(x, 2),
        lambda x: resize.pixel_unshuffle(x, 2),
        lambda x: resize.channel_shuffle(x, 2),
    ],
    ids=["shuffle", "unshuffle", "channels"],
)
def test_sizes_that_do_not_divide(call):
    """ValueError instead of a reshape that mixes things up."""
    with pytest.raises(ValueError, match="divide"):
        call(np.zeros((1, 3, 3, 3), np.float32))
