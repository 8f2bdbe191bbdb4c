"""One worker of memory.py: has every weight of the model in its way, looks at all of it, and stays to be measured.

It is started with a task as JSON and writes one JSON line when it is ready; it ends with its standard input. The ways
that share from one parent are started once, and told by lines on standard input how many workers there are to be.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

Task = dict[str, Any]
_PAGE = 4096
_PATIENCE_SECONDS = 120


def look(arrays: Mapping[str, Any]) -> None:
    """Reads one element of every page: memory that is mapped is not resident before."""
    for array in arrays.values():
        flat = array.reshape(-1)
        itemsize = array.itemsize if hasattr(array, "itemsize") and not callable(array.itemsize) else 4
        flat[:: _PAGE // itemsize].sum()


def bare(task: Task) -> object:
    """NumPy alone."""
    import numpy

    return numpy


def bare_torch(task: Task) -> object:
    """torch alone."""
    import torch

    return torch


def mapcell(task: Task) -> object:
    """A network, bound to what the daemon lends."""
    import mapcell
    from mapcell import nn
    from mapcell.nn.utils import no_init_parameters

    rows, columns = task["each"]
    with no_init_parameters():
        net = nn.SequentialCell([nn.Dense(columns, rows, has_bias=False) for _ in task["names"]])
    weights = mapcell.attach(task["name"], dtype=task["dtype"], daemon="require")
    mapcell.bind(net, weights, rename={name: f"{i}.weight" for i, name in enumerate(task["names"])})
    look({p.name: p.asnumpy() for p in net.get_parameters()})
    return net


def private(task: Task) -> Mapping[str, Any]:
    """safetensors' NumPy loader."""
    from safetensors.numpy import load_file

    if task["dtype"]:
        # NumPy knows bfloat16 only once somebody told it.
        import ml_dtypes  # noqa: F401
    arrays = load_file(task["path"])
    if task["dtype"]:
        arrays = {name: array.astype(task["dtype"]) for name, array in arrays.items()}
    look(arrays)
    return arrays


def mapped(task: Task) -> Mapping[str, Any]:
    """safetensors' torch loader, which maps the file."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(task["path"])
    if task["dtype"]:
        tensors = {name: tensor.to(getattr(torch, task["dtype"])) for name, tensor in tensors.items()}
    look(tensors)
    return tensors


WAYS = {"bare": bare, "bare torch": bare_torch, "mapcell": mapcell, "private": private, "mapped": mapped}


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def forked(task: Task) -> None:
    """A parent that loads, then forks its workers."""
    loaded = private(task)
    children: list[int] = []
    try:
        for line in sys.stdin:
            while len(children) < int(line):
                children.append(_fork(loaded))
            _say(children)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fork(loaded: Mapping[str, Any]) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            look(loaded)
            os.write(writing, b".")
            signal.pause()
        finally:
            os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return child


def shared(task: Task) -> None:
    """A parent that puts its tensors into torch's shared memory and passes them on."""
    import torch.multiprocessing as processes

    tensors = {name: tensor.share_memory_() for name, tensor in mapped(task).items()}
    context = processes.get_context("spawn")
    children: list[Any] = []
    try:
        for line in sys.stdin:
            fresh = [context.Event() for _ in range(int(line) - len(children))]
            for ready in fresh:
                child = context.Process(target=_receive, args=(tensors, ready), daemon=True)
                child.start()
                children.append(child)
            if not all(ready.wait(_PATIENCE_SECONDS) for ready in fresh):
                raise TimeoutError("a worker did not get its tensors")
            _say([child.pid for child in children])
    finally:
        for child in children:
            child.kill()
            child.join()


def _receive(tensors: Mapping[str, Any], ready: Any) -> None:
    look(tensors)
    ready.set()
    signal.pause()


PARENTS = {"forked": forked, "shared": shared}


def main() -> None:
    """Works until standard input ends."""
    task = json.loads(sys.argv[1])
    if task["way"] in PARENTS:
        PARENTS[task["way"]](task)
        return
    held = WAYS[task["way"]](task)
    _say("ready")
    sys.stdin.read()
    del held


if __name__ == "__main__":
    main()
