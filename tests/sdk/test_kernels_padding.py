"""Padding arrays, and reading paddings as users write them."""

import numpy as np
import pytest

from mapcell.kernels import arguments, windows
from mapcell.kernels.padding import pad, pairs

ROW = np.array([[1, 2, 3]])


@pytest.mark.parametrize(
    ("mode", "widths", "want"),
    [
        ("constant", (1, 2), [9, 1, 2, 3, 9, 9]),
        ("constant", (-1, 1), [2, 3, 9]),
        ("constant", (-2, -1), []),
        ("reflect", (2, 1), [3, 2, 1, 2, 3, 2]),
        ("symmetric", (2, 1), [2, 1, 1, 2, 3, 3]),
        ("replicate", (1, 2), [1, 1, 2, 3, 3, 3]),
        ("circular", (1, 2), [3, 1, 2, 3, 1, 2]),
        ("replicate", (-1, 1), [2, 3, 3]),
    ],
)
def test_modes(mode, widths, want):
    """Each mode on both sides; negative widths cut first."""
    assert pad(ROW, [(0, 0), widths], mode, 9).tolist() == [want]


def test_flat_paddings_begin_with_the_last_axis():
    """(left, right, top, bottom) of an image."""
    assert pairs((1, 2, 3, 4), 4) == [(0, 0), (0, 0), (3, 4), (1, 2)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: pairs((1,), 2),
        lambda: pairs((1, 1, 1, 1), 1),
        lambda: pad(ROW, [(0, 0), (1, 1)], "mirror"),
        lambda: pad(ROW, [(0, 0), (3, 0)], "reflect"),
    ],
)
def test_refused(call):
    """Odd or too many widths, unknown modes, more to mirror than there is."""
    with pytest.raises(ValueError, match="pad"):
        call()


@pytest.mark.parametrize(
    ("read", "value", "want"),
    [
        (lambda v: arguments.sizes(v, 2, "n"), 3, (3, 3)),
        (lambda v: arguments.sizes(v, 2, "n"), (3, 4), (3, 4)),
        (lambda v: arguments.sizes(v, 3, "n"), (3,), (3, 3, 3)),
        (lambda v: arguments.symmetric(v, 2), 1, ((1, 1), (1, 1))),
        (lambda v: arguments.symmetric(v, 2), (1, 2), ((1, 1), (2, 2))),
        (lambda v: arguments.sided(v, 2), (1, 2, 3, 4), ((1, 2), (3, 4))),
        (lambda v: arguments.sided(v, 2), 1, ((1, 1), (1, 1))),
        (lambda v: arguments.either(v, 2), (1, 2, 3, 4), ((1, 2), (3, 4))),
        (lambda v: arguments.either(v, 2), (1, 2), ((1, 1), (2, 2))),
        (arguments.pad_mode, "SAME", "same"),
    ],
)
def test_spellings(read, value, want):
    """One int counts for all axes; tuples name each."""
    assert read(value) == want


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: arguments.sizes("a", 2, "n"), TypeError),
        (lambda: arguments.sizes(1.5, 2, "n"), TypeError),
        (lambda: arguments.sizes(True, 2, "n"), TypeError),
        (lambda: arguments.sizes((1, 2, 3), 2, "n"), ValueError),
        (lambda: arguments.sizes(0, 2, "n"), ValueError),
        (lambda: arguments.symmetric(-1, 2), ValueError),
        (lambda: arguments.pad_mode(1), TypeError),
        (lambda: arguments.pad_mode("half"), ValueError),
        (lambda: arguments.no_padding_unless_pad("same", ((1, 1),)), ValueError),
    ],
)
def test_wrong_arguments(call, error):
    """Another type is a TypeError, another number or value a ValueError."""
    with pytest.raises(error):
        call()


@pytest.mark.parametrize(("mode", "want"), [("same", [(1, 2)]), ("valid", ((0, 0),)), ("pad", ((5, 5),))])
def test_what_modes_mean(mode, want):
    """The mode "same" depends on the sizes, "valid" is nothing, "pad" what was given."""
    assert arguments.pads_of(mode, ((5, 5),), (8,), (4,), (1,), (1,)) == want


def test_windows_are_views_and_padding_of_nothing_is_no_copy():
    """Every window shares the input's elements; one that does not fit is a ValueError."""
    x = np.arange(10.0)
    view = windows.windows(x, (3,), (2,), (2,))
    assert view.tolist() == [[0, 2, 4], [2, 4, 6], [4, 6, 8]]
    assert np.shares_memory(view, x)
    assert windows.padded(x, [(0, 0)]) is x
    with pytest.raises(ValueError, match="does not fit"):
        windows.windows(x, (6,), (1,), (2,))
    with pytest.raises(ValueError, match="cuts more"):
        windows.padded(x, [(-6, -6)])
