"""The real MindSpore over a checkpoint, in a process of its own: it keeps Tensors that it computed with for a while.

`python -m support.real_mindspore PROGRAM CHECKPOINT` prints JSON on its last line.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import nn, ops
from mindspore.nn.utils import no_init_parameters

import mapcell
from mapcell.mindspore import bind
from mapcell_formats.errors import BindError


def network() -> Any:
    """A Dense of 4 by 3 and a LayerNorm whose Parameters own no memory yet."""
    with no_init_parameters():
        return nn.SequentialCell([nn.Dense(3, 4), nn.LayerNorm((4,))])


def attached(path: str) -> mapcell.Weights:
    """The checkpoint, mapped by this process, private."""
    return mapcell.attach(path, mode="c", daemon="never")


def aliases(path: str) -> dict[str, Any]:
    """Whether each Parameter lies at its view's address, and how long the map stays."""
    net = network()
    with attached(path) as weights:
        returned = bind(net, weights)
        addresses = {name: view.ctypes.data for name, view in weights.items()}
    del weights
    gc.collect()
    told: dict[str, Any] = {"returned": returned}
    told["aliases"] = {n: p.data_ptr() for n, p in net.parameters_and_names()} == addresses
    told["held"] = path in Path("/proc/self/maps").read_text()
    del net
    gc.collect()
    told["let go"] = path not in Path("/proc/self/maps").read_text()
    return told


def computes(path: str) -> Any:
    """The network's answer to ones."""
    net = network()
    bind(net, attached(path))
    return net(mindspore.Tensor(np.ones((2, 3), np.float32))).asnumpy().tolist()


def writes(path: str) -> dict[str, Any]:
    """A Parameter that is written to, and what another map of the file shows then. By path: private of itself."""
    net = network()
    bind(net, path)
    ops.assign(net[0].bias, mindspore.Tensor(np.full(4, 7, np.float32)))
    other = mapcell.attach(path, daemon="never")["0.bias"]
    return {"here": net[0].bias.asnumpy().tolist(), "elsewhere": other.tolist()}


def halves(path: str) -> dict[str, Any]:
    """bfloat16 weights in a bfloat16 network, and what becomes of them in a float32 one."""
    weights = attached(path)
    net = network()
    for p in net.get_parameters():
        p.set_dtype(mindspore.bfloat16)
    bind(net, weights)
    told: dict[str, Any] = {"aliases": net[0].weight.data_ptr() == weights["0.weight"].ctypes.data}
    try:
        bind(network(), weights)
    except BindError as exc:
        told["refused"] = str(exc)
    net = network()
    bind(net, weights, strict=False)
    told["converted"] = str(net[0].weight.dtype), net[0].weight.asnumpy().tolist()
    return told


def wrong(path: str) -> dict[str, Any]:
    """A network that has more, and other, Parameters than the checkpoint has tensors."""
    net, weights = network(), attached(path)
    told: dict[str, Any] = {}
    try:
        bind(net, weights)
    except BindError as exc:
        told["refused"] = str(exc)
    told["untouched"] = bool(net[0].weight.has_init)
    told["returned"] = bind(net, weights, strict=False)
    told["bound"] = net[0].weight.data_ptr() == weights["0.weight"].ctypes.data
    return told


if __name__ == "__main__":
    program = {f.__name__: f for f in (aliases, computes, writes, halves, wrong)}[sys.argv[1]]
    print(json.dumps(program(sys.argv[2])))
