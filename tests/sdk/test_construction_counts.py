"""What networks cost to make and to bind, counted: objects that the garbage collector looks at, and calls."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator

import pytest

from mapcell import nn
from mapcell.nn.utils import no_init_parameters

LAYERS = 100
# The Cell, its attributes and its Parameters' dict; of weight and bias each the Parameter and its storage. Shapes count
# until the collector has seen that they hold only numbers.
TRACKED = 3 + 2 * 2 + 2
# Beside these a dict's keys, names, the time of creation ...
ALLOCATED = 14


@pytest.fixture
def collector() -> Iterator[None]:
    """Nothing is collected meanwhile, so that what is counted is what was made."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def grown(count: Callable[[], int], make: Callable[[], object]) -> float:
    """By how much `count` is larger for each layer while what `make` gave is there."""
    made = make()
    del made
    before = count()
    made = make()
    after = count()
    del made
    return (after - before) / LAYERS


def tracked() -> int:
    return len(gc.get_objects())


def layers() -> list[nn.Dense]:
    with no_init_parameters():
        return [nn.Dense(8, 8) for _ in range(LAYERS)]


@pytest.mark.usefixtures("collector")
def test_a_dense_layer_is_few_objects() -> None:
    """The collector looks at each of them several times while a network becomes more."""
    assert grown(tracked, layers) <= TRACKED + 0.2


@pytest.mark.usefixtures("collector")
def test_a_dense_layer_is_few_allocations() -> None:
    """As above, with what the collector never looks at."""
    assert grown(sys.getallocatedblocks, layers) <= ALLOCATED


@pytest.mark.usefixtures("collector")
def test_construction_leaves_no_garbage() -> None:
    """Nothing that was made on the way waits for the collector."""
    made = nn.SequentialCell(layers())
    assert gc.collect() == 0
    del made


@pytest.mark.usefixtures("collector")
def test_a_network_is_gone_with_its_last_reference() -> None:
    """No cycle leads from a Parameter or a child back to its Cell."""
    made = nn.SequentialCell(layers())
    del made
    assert gc.collect() == 0
