"""A torch network in several processes over one copy of its weights, each with a share of the rows to compute.

    python docs/examples/torch_processes.py model.safetensors 4

The file holds `0.weight` (hidden, features), `0.bias`, `2.weight` (classes, hidden) and `2.bias`. Only the workers
import torch: the process that hands out the work needs none of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

import mapcell

if TYPE_CHECKING:
    import torch


def network(path: str) -> torch.nn.Module:
    """The network over shared pages: nothing is initialised, read or copied."""
    import torch

    import mapcell.torch

    weights = mapcell.torch.load_file(path)
    hidden, features = weights["0.weight"].shape
    with mapcell.torch.no_init_parameters():
        net = torch.nn.Sequential(
            torch.nn.Linear(features, hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, len(weights["2.weight"])),
        )
    mapcell.torch.bind_module(net, weights)
    return net.eval()


def work(path: str, threads: int, rows: Connection) -> None:
    """Answers batches of rows with scores until the other end is closed."""
    import torch

    torch.set_num_threads(threads)
    net = network(path)
    with torch.inference_mode():
        while True:
            try:
                batch = rows.recv()
            except EOFError:
                return
            rows.send(net(torch.from_numpy(batch)).numpy())


def main(path: str, processes: int) -> None:
    """Prints the best class of 64 rows, and what the processes hold."""
    path = os.path.abspath(path)
    # Not fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // processes)
    pipes = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=work, args=(path, threads, theirs)) for _, theirs in pipes]
    for worker, (_, theirs) in zip(workers, pipes, strict=True):
        worker.start()
        theirs.close()
    features = mapcell.attach(path).entry("0.weight").shape[1]
    batches = np.array_split(np.linspace(-1, 1, 64 * features, dtype=np.float32).reshape(64, features), processes)
    for (ours, _), batch in zip(pipes, batches, strict=True):
        ours.send(batch)
    best = [int(row.argmax()) for ours, _ in pipes for row in ours.recv()]
    print(best)
    for ours, _ in pipes:
        ours.close()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
