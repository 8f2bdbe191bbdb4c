"""The seed of everything random: ``set_seed`` makes what is initialised after it repeatable.

This module holds the package's one piece of global state, as MindSpore's API demands it. NumPy's global generator takes
part: without ``set_seed``, ``numpy.random.seed`` makes initialisation repeatable too.
"""

from __future__ import annotations

import numpy as np

from ..kernels.promotion import Array
from . import philox

# Above this the documented generator, in lockstep in NumPy at about 1.6 us a number, would be felt.
PHILOX_UP_TO = 65_536


class _State:
    __slots__ = ("seed", "tensors")

    def __init__(self) -> None:
        self.seed: int | None = None
        self.tensors = 0


_state = _State()


def set_seed(seed: int) -> None:
    """Seeds NumPy and every initializer. TypeError unless an int, ValueError when negative."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"set_seed: the seed has to be an int, not {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"set_seed: the seed has to be at least 0, but it is {seed}")
    np.random.seed(seed % 2**32)
    _state.seed, _state.tensors = seed, 0


def get_seed() -> int | None:
    """The seed last set, or None."""
    return _state.seed


def generator() -> np.random.Generator:
    """A generator for one tensor, seeded by NumPy's global one."""
    _state.tensors += 1
    return np.random.Generator(np.random.SFC64(int(np.random.randint(0, 2**63 - 1, dtype=np.int64))))


def standard_normal(count: int) -> Array:
    """`count` normal numbers for one tensor as float32; the documented ones if a seed is set and they are few."""
    if _state.seed is None or not 0 < count <= PHILOX_UP_TO:
        return generator().standard_normal(count, np.float32)
    _state.tensors += 1
    return philox.standard_normal(count, _state.seed, _state.tensors)
