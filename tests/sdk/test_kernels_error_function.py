"""The float32 error function against SciPy's in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from mapcell.kernels.activation import gelu
from mapcell.kernels.error_function import erf_in_place

SPECIAL = np.array([np.inf, -np.inf, 0, 1e-30, -1e-42, 3.92, 4, 100, -100], np.float32)
CASES = {
    "dense": np.linspace(-6, 6, 300_001, dtype=np.float32),
    "special": SPECIAL,
    "scalar": np.array(0.5, np.float32),
    "empty": np.empty((3, 0), np.float32),
    "matrix": np.linspace(-3, 3, 60, dtype=np.float32).reshape(3, 4, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_close_to_scipy(case: str) -> None:
    """Every element is within 4e-7 of the true value, relatively, and in float32's smallest numbers absolutely."""
    x = CASES[case].copy()
    erf_in_place(x)
    assert np.allclose(x, erf(CASES[case].astype(np.float64)), rtol=4e-7, atol=2e-45)


def test_special_values() -> None:
    """NaN stays NaN, zero keeps its sign, and from 4 on it is 1."""
    x = np.array([np.nan, -0.0, 4.0, -4.0, np.inf], np.float32)
    erf_in_place(x)
    assert np.isnan(x[0])
    assert np.signbit(x[1])
    assert x[2:].tolist() == [1.0, -1.0, 1.0]


def test_never_beyond_one() -> None:
    """No rounding pushes the result beyond 1."""
    x = np.linspace(3, 5, 1_000_001, dtype=np.float32)
    erf_in_place(x)
    assert x.max() <= 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gelu(dtype: type[np.floating], order: str) -> None:
    """gelu is x Phi(x) in every floating dtype and memory order, and leaves its input alone."""
    x = np.asarray(np.linspace(-8, 8, 40).reshape(5, 8), dtype, order=order)  # type: ignore[call-overload]
    before = x.copy()
    true = before.astype(np.float64) * (1 + erf(before.astype(np.float64) / np.sqrt(2))) / 2
    assert np.allclose(gelu(x), true, rtol=0, atol={2: 2e-3, 4: 1e-6, 8: 1e-14}[x.itemsize])
    assert np.array_equal(x, before)
