"""Which tensors an upload brings, in which order, and which of them are the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mapcell_formats.dtypes import code_of
from mapcell_formats.manifest import TensorEntry

from ..mapping import Array
from ..weights import Weights
from .plan import Item


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor to bring: what the plan needs, how it is spelled, and how to get at its elements."""

    item: Item
    dtype: str
    shape: tuple[int, ...]
    array: Callable[[], Array]

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.item.name


def wanted_tensors(weights: Weights | Mapping[str, Any], keys: Sequence[str] | None) -> list[Wanted]:
    """The tensors of `weights`, those in `keys` in that order, or all. No element is touched.

    NotFound, or a mapping's own KeyError, for a key that is not there; TypeError for what is no array of a dtype that
    checkpoints have.
    """
    if not isinstance(weights, Weights):
        names = list(weights) if keys is None else list(dict.fromkeys(keys))
        return [_of_array(name, weights[name]) for name in names]
    entries = list(weights.entries()) if keys is None else [weights.entry(k) for k in dict.fromkeys(keys)]
    shared = Counter(map(_where, entries))
    return [_of_entry(weights, entry, shared[_where(entry)] > 1) for entry in entries]


def _where(entry: TensorEntry) -> Hashable:
    return entry.segment, entry.offset, entry.dtype, entry.shape


def _of_entry(weights: Weights, entry: TensorEntry, twice: bool) -> Wanted:
    # An entry says where a tensor begins in its file, which for one that has to be collected is not all of it: only
    # where the views begin at one address are they the same bytes.
    place: Hashable = weights.at(entry).ctypes.data if twice and entry.nbytes else entry.name
    return Wanted(Item(entry.name, entry.nbytes, place), entry.dtype, entry.shape, partial(weights.at, entry))


def _of_array(name: str, array: Any) -> Wanted:
    if not isinstance(array, np.ndarray) or not array.dtype.isnative:
        raise TypeError(f"{name!r} has to be an ndarray in this machine's byte order, not {type(array).__name__}")
    try:
        code = code_of(array.dtype)
    except KeyError:
        raise TypeError(f"{name!r} is {array.dtype}, which checkpoints do not hold") from None
    place = (array.ctypes.data, array.shape, array.strides, code)
    return Wanted(Item(name, array.nbytes, place), code, array.shape, lambda: array)
