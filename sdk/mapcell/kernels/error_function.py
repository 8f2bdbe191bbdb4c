"""The error function in float32, without SciPy.

scipy.special has one, but importing it costs each process 18 MiB of private memory and 0.2 s (measured with SciPy
1.17), which is more than everything else that a worker needs besides its weights.

erf(x) = x P(x^2) / Q(x^2) for |x| <= 3.92; beyond that it is 1 in float32. The coefficients are a minimax fit of degree
5 over 5 to the relative error; evaluated in float32 the result is within 4e-7 of the true one, relatively.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ONE_FROM = np.float32(3.92)
_ABOVE = (1.1283791, 0.18966682, 0.05266809, 0.0037383486, 0.00028506268, 2.0664784e-06)
_BELOW = (1.0, 0.5014206, 0.11381897, 0.014914281, 0.0011573776, 3.82701e-05)
# Four buffers of this many floats stay in the second-level cache.
_BLOCK = 16384


def erf_in_place(x: Floats) -> None:
    """Replaces each element of a C-contiguous float32 array by its error function. NaN stays NaN."""
    assert x.flags.c_contiguous, "reshape would copy, and the result be lost"
    flat = x.reshape(-1)
    square, above, below = (np.empty(min(_BLOCK, flat.size), np.float32) for _ in range(3))
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        _erf_block(part, square[: part.size], above[: part.size], below[: part.size])


def _erf_block(x: Floats, square: Floats, above: Floats, below: Floats) -> None:
    np.clip(x, -_ONE_FROM, _ONE_FROM, out=x)
    np.multiply(x, x, out=square)
    _polynomial(_ABOVE, square, above)
    _polynomial(_BELOW, square, below)
    x *= above
    x /= below
    np.clip(x, np.float32(-1), np.float32(1), out=x)


def _polynomial(coefficients: tuple[float, ...], t: Floats, out: Floats) -> None:
    """Horner's rule; the coefficient of t^0 comes first."""
    np.multiply(t, np.float32(coefficients[-1]), out=out)
    for coefficient in coefficients[-2:0:-1]:
        out += np.float32(coefficient)
        out *= t
    out += np.float32(coefficients[0])
