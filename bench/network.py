"""What a network costs before and after its weights are bound: construction, bind, first use, forward.

python bench/network.py [--parameters 10000] [--elements 1000000000] [--rounds 10]

construct    `--parameters` Parameters in layers of two; mapcell with and without no_init_parameters(), torch on the
             meta device and with its initialisers
elements     few Parameters that have `--elements` elements together
bind         each Parameter to its tensor: bind() of a new network right after attaching (neither is part of the time),
             and once more with weights that were listed before; torch's load_state_dict(assign=True)
first use    each bound Parameter's array, for the first time
forward      a batch through Dense layers whose weights are views of shared memory, and through equal ones whose
             weights are private arrays
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# On a busy machine BLAS's threads wait for each other, and that would be what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import mapcell
from common import Repetition, Row, compare, folder, parser, private_daemon, run
from mapcell import nn
from mapcell.nn.utils import no_init_parameters

SMALL = 8
LARGE = 8192
BLOCK = 50
FORWARD_WIDTH = 1024
FORWARD_LAYERS = 8
BATCHES = (1, 64)


def blocks(layers: int) -> list[int]:
    """How many layers are in each block: torch looks through all names once for each block or layer in one."""
    whole, rest = divmod(layers, BLOCK)
    return [BLOCK] * whole + [rest] * bool(rest)


class Layers(nn.Cell):
    """`layers` Dense layers in a row, in blocks."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        made = ([nn.Dense(width, width) for _ in range(count)] for count in blocks(layers))
        self.layers = nn.SequentialCell([nn.SequentialCell(block) for block in made])

    def construct(self, x: mapcell.Tensor) -> Any:
        """One after the other."""
        return self.layers(x)


def lazy(layers: int, width: int) -> Layers:
    """The network without its elements."""
    with no_init_parameters():
        return Layers(layers, width)


def torch_layers(layers: int, width: int, device: str) -> Any:
    """The same in torch."""
    from torch.nn import Linear, Sequential

    made = ([Linear(width, width, device=device) for _ in range(count)] for count in blocks(layers))
    return Sequential(*(Sequential(*block) for block in made))


def maker(layers: int, width: int, device: str) -> Repetition:
    """Constructs the torch network; ImportError without torch."""
    import torch  # noqa: F401

    return lambda: torch_layers(layers, width, device)


def construction(options: argparse.Namespace) -> list[Row]:
    """Many Parameters, then many elements."""
    layers = options.parameters // 2
    ways: dict[str, Callable[[], Repetition]] = {
        "mapcell, no_init": lambda: lambda: lazy(layers, SMALL),
        "mapcell, initialised": lambda: lambda: Layers(layers, SMALL),
        "torch, meta": lambda: maker(layers, SMALL, "meta"),
        "torch, initialised": lambda: maker(layers, SMALL, "cpu"),
    }
    case = {"what": "construct", "parameters": 2 * layers}
    rows = compare(case, ways, options.rounds, options.only, limit=options.limit)
    large = -(-options.elements // LARGE**2)
    ways = {
        "mapcell, no_init": lambda: lambda: lazy(large, LARGE),
        "torch, meta": lambda: maker(large, LARGE, "meta"),
    }
    case = {"what": "elements", "parameters": 2 * large, "elements": large * LARGE * (LARGE + 1)}
    return rows + compare(case, ways, options.rounds, options.only, limit=options.limit)


class Bound:
    """Binds a network that was never bound to weights that nobody has looked at yet, as a worker does."""

    def __init__(self, path: Path, layers: int) -> None:
        self._path = path
        self._layers = layers
        self._net: Any = None
        self._weights: Any = None

    def before(self) -> None:
        """Builds and attaches anew."""
        self._net = lazy(self._layers, SMALL)
        self._weights = mapcell.attach(self._path, daemon="require")

    def __call__(self) -> object:
        return mapcell.bind(self._net, self._weights)


class FirstUse:
    """Has every Parameter's array; bound anew before."""

    def __init__(self, net: Layers, weights: Any) -> None:
        self._net = net
        self._weights = weights
        self._parameters = list(net.get_parameters())

    def before(self) -> None:
        """Forgets the views."""
        mapcell.bind(self._net, self._weights)

    def __call__(self) -> object:
        return [parameter.asnumpy() for parameter in self._parameters]


def torch_assign(path: Path, layers: int) -> Repetition:
    """load_state_dict of tensors that are there."""
    from safetensors.torch import load_file

    net = torch_layers(layers, SMALL, "meta")
    state = {name.removeprefix("layers."): tensor for name, tensor in load_file(path).items()}
    return lambda: net.load_state_dict(state, assign=True)


def binding(options: argparse.Namespace, place: Path) -> list[Row]:
    """Many Parameters are bound, and used for the first time."""
    layers = options.parameters // 2
    path = place / "small.safetensors"
    mapcell.save_checkpoint(Layers(layers, SMALL), str(path), format="safetensors")
    net, weights = lazy(layers, SMALL), mapcell.attach(path, daemon="require")
    case: dict[str, object] = {"what": "bind", "parameters": 2 * layers}
    ways: dict[str, Callable[[], Repetition]] = {
        "mapcell": lambda: Bound(path, layers),
        "mapcell, listed before": lambda: lambda: mapcell.bind(net, weights),
        "torch, assign": lambda: torch_assign(path, layers),
    }
    rows = compare(case, ways, options.rounds, options.only, limit=options.limit)
    case = case | {"what": "first use"}
    return rows + compare(case, {"mapcell": lambda: FirstUse(net, weights)}, options.rounds, options.only)


def forward(options: argparse.Namespace, place: Path) -> list[Row]:
    """The same network, bound to shared memory and to arrays of its own."""
    path = place / "forward.safetensors"
    mapcell.save_checkpoint(Layers(FORWARD_LAYERS, FORWARD_WIDTH), str(path), format="safetensors")
    shared, private = (lazy(FORWARD_LAYERS, FORWARD_WIDTH) for _ in range(2))
    weights = mapcell.attach(path, daemon="require")
    mapcell.bind(shared, weights)
    mapcell.bind(private, {name: np.array(array) for name, array in weights.items()})
    rows = []
    for batch in BATCHES:
        x = mapcell.Tensor(np.ones((batch, FORWARD_WIDTH), np.float32))
        ways: dict[str, Callable[[], Repetition]] = {
            "mapcell, shared": lambda x=x: lambda: shared(x).asnumpy(),  # type: ignore[misc]
            "mapcell, private arrays": lambda x=x: lambda: private(x).asnumpy(),  # type: ignore[misc]
        }
        case = {"what": "forward", "batch": batch, "layers": FORWARD_LAYERS, "width": FORWARD_WIDTH}
        rows += compare(case, ways, 40 * options.rounds, options.only, burst=10, limit=options.limit)
    return rows


def measure(options: argparse.Namespace) -> list[Row]:
    """All of it."""
    rows = construction(options)
    with folder(options.folder) as place, private_daemon():
        return rows + binding(options, place) + forward(options, place)


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--parameters", type=int, default=10_000)
    arguments.add_argument("--elements", type=int, default=1_000_000_000)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--limit", type=float, default=3.0, help="seconds after which a way sits out in a case")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
