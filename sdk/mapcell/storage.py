"""Where a Tensor's elements are: the one type that everything about laziness and sharing is stated in.

    Storage = ndarray       its own array
            | LazyInit      an initializer that has not run yet
            | SharedView    an entry of attached weights that has not been looked at yet
            | Derived       one of these, to be converted at first use
            | Unfilled      a shape and a dtype, and never any elements
            | Recorded      an array that a gradient is computed through, see kernels.recorded

All know `shape` and `dtype` without data. `array_of` is the only way from a storage to elements: it runs the
initializer or makes the view, once, whichever thread comes first; `operand` gives what to compute with, which is the
same but for Recorded. A storage never goes back, so Tensors on one storage share the elements too.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mapcell_formats.dtypes import numpy_dtype

from .kernels.recorded import Recorded

Array: TypeAlias = NDArray[Any]


class Entry(Protocol):
    """What a SharedView needs to know of a tensor: its name, its dtype's code and its shape."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class ArraySource(Protocol):
    """Attached weights, as far as a SharedView uses them."""

    def at(self, entry: Any, /) -> Array: ...


class Fill(Protocol):
    """An initializer: writes into the array that it is given."""

    def __call__(self, arr: Any, /) -> None: ...


# One lock for all: initializers draw from one random stream, and one of them may read another lazy Parameter.
_INITIALISING = RLock()
# A child must not inherit the lock in the hands of a thread that it does not have.
os.register_at_fork(
    before=_INITIALISING.acquire, after_in_parent=_INITIALISING.release, after_in_child=_INITIALISING.release
)


class LazyInit:
    """Elements that `init` will write when they are first asked for.

    `init` gets an array of zeros to write into. Thread-safe; it runs at most once.
    """

    __slots__ = ("_array", "dtype", "init", "shape")

    def __init__(self, init: Fill, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.init: Fill | None = init
        self.shape = shape
        self.dtype = dtype
        self._array: Array | None = None

    @property
    def pending(self) -> bool:
        """Whether the initializer has not run yet."""
        return self._array is None

    def array(self) -> Array:
        """The elements; the first call makes them."""
        if self._array is None:
            with _INITIALISING:
                if self._array is None:
                    self._array = self._make()
                    self.init = None
        return self._array

    operand = array

    def _make(self) -> Array:
        assert self.init is not None
        array = np.zeros(self.shape, self.dtype)
        self.init(array)
        return array


class SharedView:
    """An entry of attached weights. Holding one touches no page and owns no memory beyond itself.

    The view made at first use is kept; it is read-only unless the weights were attached copy-on-write (mode "c").
    """

    __slots__ = ("_array", "dtype", "entry", "shape", "weights")

    def __init__(self, weights: ArraySource, entry: Entry) -> None:
        self.weights = weights
        self.entry = entry
        self.shape = entry.shape
        self.dtype = numpy_dtype(entry.dtype)
        self._array: Array | None = None

    @property
    def pending(self) -> bool:
        """Whether the view was not made yet."""
        return self._array is None

    def array(self) -> Array:
        """The view; the first call makes it. Two threads at once make equal views of the same bytes."""
        if self._array is None:
            self._array = self.weights.at(self.entry)
        return self._array

    operand = array


class Unfilled:
    """A shape (-1 for sizes not known) and a dtype without elements."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype

    def array(self) -> Array:
        """RuntimeError: there is nothing to compute with."""
        raise RuntimeError("this Tensor has a shape and a dtype, but no data: it was made without input_data and init")

    operand = array


class Derived:
    """The elements of another storage in another dtype or shape, converted when they are first asked for.

    Without a change of dtype the result is a view of the same elements. Thread-safe, converts at most once.
    """

    __slots__ = ("_array", "_source", "dtype", "shape")

    def __init__(self, source: Storage, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._source: Storage | None = source
        self.shape = shape
        self.dtype = dtype
        self._array: Array | None = None

    def array(self) -> Array:
        """The converted elements; the first call converts and lets go of the source."""
        if self._array is None:
            with _INITIALISING:
                if self._source is not None:
                    with np.errstate(all="ignore"):
                        self._array = array_of(self._source).astype(self.dtype, copy=False).reshape(self.shape)
                    self._source = None
        assert self._array is not None
        return self._array

    operand = array


Storage: TypeAlias = Array | LazyInit | SharedView | Derived | Unfilled | Recorded


def array_of(storage: Storage) -> Array:
    """The elements, initialised or bound if they were not."""
    return storage if type(storage) is np.ndarray else storage.array()  # type: ignore[union-attr]


def is_pending_init(storage: Storage) -> bool:
    """Whether an initializer still has to run."""
    return type(storage) is LazyInit and storage.pending


def has_elements(storage: Storage) -> bool:
    """Whether elements are at hand, so that showing them costs nothing."""
    return type(storage) is np.ndarray or (not isinstance(storage, Unfilled) and not is_pending_init(storage))


def is_shared(storage: Storage) -> bool:
    """Whether the elements belong to attached weights."""
    return type(storage) is SharedView


def shared_entry(storage: Storage) -> tuple[Any, Entry] | None:
    """The weights and the entry that a shared storage stands for, None for any other."""
    return (storage.weights, storage.entry) if type(storage) is SharedView else None


def initializer_of(storage: Storage) -> Fill | None:
    """The initializer that still has to run, if one has."""
    return storage.init if type(storage) is LazyInit else None


def converted(storage: Storage, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Storage:
    """`storage` itself if it has this shape and dtype, else its elements converted at first use."""
    if isinstance(storage, Recorded):
        storage = storage.value
    if storage.shape == shape and storage.dtype == dtype:
        return storage
    return Derived(storage, shape, dtype)
