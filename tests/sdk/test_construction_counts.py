"""What networks cost to make, to bind and to run, counted: objects for the garbage collector, and calls."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mapcell
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
    gc.collect()
    made = nn.SequentialCell(layers())
    assert gc.collect() == 0
    del made


# For each Parameter its view, and the entry with its shape. What is made on the way is gone at once.
BOUND = 3


def test_binding_makes_few_objects(tmp_path: Path) -> None:
    """Counted by how often the collector runs: after every 100 objects that are there to stay."""
    made = nn.SequentialCell(layers())
    mapcell.save_checkpoint(made, str(tmp_path / "net.safetensors"), format="safetensors")
    with mapcell.attach(tmp_path / "net.safetensors", daemon="never") as weights, collecting_every(100) as phases:
        mapcell.bind(made, weights)
    assert phases.count("start") <= BOUND * 2 * LAYERS / 100 + 1


def test_views_cost_one_call_more_than_arrays(tmp_path: Path) -> None:
    """Between a kernel and a Parameter that is a view there is one function, which gives the array."""
    made, private = nn.SequentialCell(layers()), nn.SequentialCell(layers())
    mapcell.save_checkpoint(made, str(tmp_path / "net.safetensors"), format="safetensors")
    with mapcell.attach(tmp_path / "net.safetensors", daemon="never") as weights:
        mapcell.bind(made, weights)
        mapcell.bind(private, {name: np.array(array) for name, array in weights.items()})
        assert calls_of(made) - calls_of(private) <= 2 * LAYERS


def calls_of(net: nn.Cell) -> int:
    """How many functions run while `net` does, once everything was used."""
    x = mapcell.Tensor(np.ones((1, 8), np.float32))
    net(x)
    events: list[str] = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    net(x)
    sys.setprofile(None)
    return events.count("call")


BINDS = """
import sys
import mapcell
from mapcell import nn
from mapcell.nn.utils import no_init_parameters
with no_init_parameters():
    net = nn.SequentialCell(nn.Dense(2, 2))
mapcell.bind(net, {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()})
print(*sorted({"dataclasses", "mapcell_formats.renaming", "mapcell.nn.activation"} & sys.modules.keys()))
"""


def test_a_fresh_worker_imports_what_it_uses() -> None:
    """Constructing and binding bring neither dataclasses, which compile code, nor modules that were not asked for."""
    ran = subprocess.run([sys.executable, "-c", BINDS], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == ""


@contextlib.contextmanager
def collecting_every(objects: int) -> Iterator[list[str]]:
    """Has the collector run whenever there are so many objects more; what it says when it starts and stops."""
    usual = gc.get_threshold()
    phases: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        del info
        phases.append(phase)

    gc.set_threshold(objects, *usual[1:])
    gc.callbacks.append(note)
    try:
        yield phases
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*usual)


@pytest.mark.usefixtures("collector")
def test_a_network_is_gone_with_its_last_reference() -> None:
    """No cycle leads from a Parameter or a child back to its Cell."""
    made = nn.SequentialCell(layers())
    gc.collect()
    del made
    assert gc.collect() == 0
