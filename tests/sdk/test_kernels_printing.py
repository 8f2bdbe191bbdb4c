"""What repr shows of a Tensor's elements."""

import ml_dtypes
import numpy as np
import pytest

from mapcell import Tensor

ZEROS = "[0, 0, 0 ... 0, 0, 0]"
CASES = [
    (np.array([1, 2.5], np.float32), " [ 1.00000000e+00,  2.50000000e+00]"),
    (np.array([1, -2.5], np.float64), " [ 1.00000000e+00, -2.50000000e+00]"),
    (np.array([1, 2.5], np.float16), " [ 1.0000e+00,  2.5000e+00]"),
    (np.array([1, -22]), " [  1, -22]"),
    (np.array([True, False]), " [ True, False]"),
    (np.array([1.5, 2], ml_dtypes.bfloat16), " [1.5,   2]"),
    (np.array(2), " 2"),
    (np.array(3.14159265, np.float32), " 3.14159"),
    (np.array(True), " True"),
    (np.zeros(0), "\n"),
    (np.array([[1, 2], [3, 4]]), "\n[[1, 2],\n [3, 4]]"),
    (np.arange(8).reshape(2, 2, 2), "\n[[[0, 1],\n  [2, 3]],\n [[4, 5],\n  [6, 7]]]"),
    (np.arange(2000), " [   0,    1,    2 ... 1997, 1998, 1999]"),
    (
        np.zeros((40, 40), np.int8),
        "\n[" + ZEROS + ",\n " + ZEROS + ",\n " + ZEROS + ",\n ...\n " + ZEROS + ",\n " + ZEROS + ",\n " + ZEROS + "]",
    ),
]


@pytest.mark.parametrize(("array", "text"), CASES, ids=range(len(CASES)))
def test_value_text(array, text):
    """Floats in full, everything else short and aligned, long axes summarised."""
    assert repr(Tensor(array)).split("value=")[1] == text + ")"


def test_str_is_numpys():
    """`str` shows the elements as NumPy does."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert str(Tensor(array)) == str(array)
    assert str(Tensor(2.0)) == "2.0"
