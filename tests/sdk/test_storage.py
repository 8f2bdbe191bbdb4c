"""Storages: what is known without data, and when elements are made."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from mapcell.storage import (
    Derived,
    LazyInit,
    SharedView,
    Unfilled,
    array_of,
    converted,
    has_elements,
    initializer_of,
    is_pending_init,
    is_shared,
)
from mapcell_formats.manifest import TensorEntry

F32 = np.dtype(np.float32)
ENTRY = TensorEntry("w", "F32", (2, 3), 0, 0, 24)


class Source(dict):
    """Weights that count how often they are looked at."""

    looks = 0

    def at(self, entry):
        self.looks += 1
        return self[entry.name]


def source():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = False
    return Source(w=array)


def fill_ones(arr):
    arr[...] = 1


STORAGES = [
    np.ones((2, 3), F32),
    LazyInit(fill_ones, (2, 3), F32),
    SharedView(source(), ENTRY),
    Derived(np.ones((6,), np.float64), (2, 3), F32),
    Unfilled((2, 3), F32),
]


@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: type(s).__name__)
def test_shape_and_dtype_need_no_elements(storage):
    """Every kind of storage knows its shape and dtype."""
    assert storage.shape == (2, 3)
    assert storage.dtype == F32


@pytest.mark.parametrize("storage", STORAGES[:4], ids=lambda s: type(s).__name__)
def test_array_of_gives_the_same_elements_each_time(storage):
    """The elements are made once and kept."""
    first = array_of(storage)
    assert (first.shape, first.dtype) == ((2, 3), F32)
    assert array_of(storage) is first


def test_unfilled_has_no_elements():
    """A shape and dtype alone cannot be computed with."""
    with pytest.raises(RuntimeError, match="no data"):
        array_of(Unfilled((1,), F32))


def test_lazy_init_runs_once_even_when_threads_race():
    """All threads get the elements of the one run."""
    runs = []

    def fill(arr):
        runs.append(1)
        arr[...] = len(runs)

    storage = LazyInit(fill, (1000,), F32)
    results = []
    threads = [threading.Thread(target=lambda: results.append(array_of(storage))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1
    assert all(r is results[0] for r in results)


def test_lazy_init_tells_whether_it_is_pending():
    """The initializer is known until it ran."""
    storage = LazyInit(fill_ones, (2,), F32)
    assert is_pending_init(storage)
    assert initializer_of(storage) is fill_ones
    assert not has_elements(storage)
    array_of(storage)
    assert not is_pending_init(storage)
    assert initializer_of(storage) is None
    assert has_elements(storage)


def test_an_initializer_that_fails_can_be_tried_again():
    """A failure leaves the storage as it was."""
    attempts = []

    def fill(arr):
        attempts.append(1)
        if len(attempts) == 1:
            raise KeyError("no")
        arr[...] = 2

    storage = LazyInit(fill, (1,), F32)
    with pytest.raises(KeyError):
        array_of(storage)
    assert is_pending_init(storage)
    assert array_of(storage).tolist() == [2]


def test_shared_view_looks_at_its_weights_once_and_only_when_asked():
    """Holding an entry touches nothing; the view is kept."""
    weights = source()
    storage = SharedView(weights, ENTRY)
    assert (storage.pending, weights.looks) == (True, 0)
    view = array_of(storage)
    assert array_of(storage) is view
    assert weights.looks == 1
    assert is_shared(storage)
    assert view.base is weights["w"].base


def test_converted_is_lazy_and_keeps_what_fits():
    """A storage that fits is returned as it is; another is converted at first use."""
    weights = source()
    storage = SharedView(weights, ENTRY)
    assert converted(storage, (2, 3), F32) is storage
    derived = converted(storage, (6,), np.dtype(np.float64))
    assert weights.looks == 0
    assert array_of(derived).tolist() == [0, 1, 2, 3, 4, 5]
    assert array_of(derived).dtype == np.float64


def test_converting_the_shape_alone_copies_nothing():
    """A reshape is a view of the same memory, read-only as that is."""
    weights = source()
    array = array_of(converted(SharedView(weights, ENTRY), (3, 2), F32))
    assert np.shares_memory(array, weights["w"])
    assert not array.flags.writeable


# Newer Pythons warn of forking with threads, which is what this is about.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_during_an_initialisation_can_initialise():
    """The fork waits for the thread that initialises, so that the child finds no lock held."""
    started = threading.Event()

    def slow(arr):
        started.set()
        time.sleep(0.2)
        arr[...] = 3

    storage, mine = LazyInit(slow, (2,), F32), LazyInit(fill_ones, (2,), F32)
    thread = threading.Thread(target=lambda: array_of(storage))
    thread.start()
    started.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        fine = array_of(mine).tolist() == [1, 1] and array_of(storage).tolist() == [3, 3]
        os._exit(0 if fine else 1)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
